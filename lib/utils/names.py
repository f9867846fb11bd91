"""The type of a text that must be a name in a registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from pydantic_core import PydanticCustomError, core_schema

from lib.utils.text import did_you_mean


@dataclass(frozen=True)
class OneOf:
    """In ``Annotated[str, OneOf("lib.datasets:CORPORA")]``: the text must be a key of the registry.

    The registry is imported only when a value is checked or described. So a model that uses this is
    quick to import, and entries that are added later are known.

    Attributes:
        registry: ``"module:name"`` of the names, or of a function that returns them.
        but: Names of the registry that are refused.
    """

    registry: str
    but: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The accepted names, in the registry's order.

        >>> OneOf("lib.datasets:CORPORA").names
        ('scenes', 'flickr8k')
        """
        names = resolve_name(self.registry)
        return tuple(n for n in (names() if callable(names) else names) if n not in self.but)

    def check(self, name: str) -> str:
        """Return ``name`` if it is accepted; else raise pydantic's error."""
        if name in self.names:
            return name
        hint, known = did_you_mean(name, self.names), ", ".join(self.names)
        raise PydanticCustomError(
            "unknown_name",
            "{name} is unknown{hint}; use one of {known}",
            {"name": repr(name), "hint": hint, "known": known},
        )

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], core_schema.CoreSchema]
    ) -> core_schema.CoreSchema:
        """Return the schema that checks the name after pydantic has checked the type."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
