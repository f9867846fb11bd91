"""The known name that a mistyped one is nearest to, for errors that help."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that is most like ``name``, or None if none is much like it.

    >>> nearest("epohcs", ["seeds", "epochs"]), nearest("x", ["seeds", "epochs"])
    ('epochs', None)
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the hint that follows an unknown name in an error: " (did you mean ...?)", or "".

    >>> did_you_mean("epohcs", ["seeds", "epochs"])
    " (did you mean 'epochs'?)"
    """
    found = nearest(name, names)
    return f" (did you mean {found!r}?)" if found else ""
