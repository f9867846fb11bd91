"""YAML in which a number is the number that is written.

PyYAML reads YAML 1.1, in which ``0100`` is 64, ``1:30`` is 90 and ``1e3`` is text.
"""

import re
from typing import Any

import yaml  # type: ignore[import-untyped]
from yaml import YAMLError

__all__ = ["YAMLError", "read_yaml"]

_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INTEGER: re.compile(r"[-+]?[0-9]+$"),
    _FLOAT: re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2's decimal numbers; octal, sexagesimal and underscored ones are text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
_Loader.add_constructor(_INTEGER, lambda loader, node: int(loader.construct_scalar(node)))


def read_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        YAMLError: The text is not YAML.

    >>> read_yaml("[0100, 1e3, 1:30, 0x10, 1_000]")
    [100, 1000.0, '1:30', '0x10', '1_000']
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
