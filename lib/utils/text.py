"""Text for people: unprintable characters made visible, and the nearest known name."""

import difflib
import unicodedata
from collections.abc import Iterable

_KEPT = frozenset("\n\u00ad\u200c\u200d")
"""New lines, and the marks within words and emoji that some scripts need."""

_UNPRINTABLE = frozenset(["Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"])
"""Unicode's categories of controls, formats, non-characters and line separators."""


def printable(text: str) -> str:
    r"""Return text with each unprintable character as its escape; new lines stay.

    File names and captions may contain escape sequences that clear a terminal, marks that reverse
    text, controls that abort a drawing library, and bytes that are not text.

    >>> print(printable("\x1b[2Jdog\u202egpj.jpg"))
    \x1b[2Jdog\u202egpj.jpg
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if c not in _KEPT and unicodedata.category(c) in _UNPRINTABLE
        else c
        for c in text
    )


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name in ``names`` that is most similar to ``name``, or None if none is similar.

    >>> nearest("epohcs", ["seeds", "epochs"]), nearest("x", ["seeds", "epochs"])
    ('epochs', None)
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the hint that follows an unknown name in an error: " (did you mean ...?)", or "".

    >>> did_you_mean("epohcs", ["seeds", "epochs"])
    " (did you mean 'epochs'?)"
    """
    known = nearest(name, names)
    return f" (did you mean {known!r}?)" if known else ""
