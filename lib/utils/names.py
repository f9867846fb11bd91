"""Text that must be a name in a registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from pydantic_core import PydanticCustomError, core_schema

from lib.utils.text import did_you_mean


@dataclass(frozen=True)
class OneOf:
    """In ``Annotated[str, OneOf("lib.datasets:CORPORA")]``: the text must be a key of the registry.

    The registry is imported when a value is checked or described, not before. So a model that uses
    it is quick to import, and an entry that is added later is known.

    Attributes:
        registry: ``"module:name"`` of the names, or of a function that returns them.
        but: Names in it that are refused.
    """

    registry: str
    but: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The known names, in the registry's order.

        >>> OneOf("lib.datasets:CORPORA").names
        ('scenes', 'flickr8k')
        """
        found = resolve_name(self.registry)
        return tuple(n for n in (found() if callable(found) else found) if n not in self.but)

    def check(self, name: str) -> str:
        """Return ``name`` if it is known; else raise pydantic's error."""
        if name in self.names:
            return name
        raise PydanticCustomError(
            "unknown_name",
            "{name} is unknown{hint}; use one of {known}",
            {
                "name": repr(name),
                "hint": did_you_mean(name, self.names),
                "known": ", ".join(self.names),
            },
        )

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], core_schema.CoreSchema]
    ) -> core_schema.CoreSchema:
        """Check after pydantic has checked that it is text."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
