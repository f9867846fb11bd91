"""Text for people: unprintable characters made visible, and the nearest known name."""

import difflib
import unicodedata
from collections.abc import Iterable

_KEPT = frozenset("\n\u00ad\u200c\u200d")
"""New lines, and the marks within words and emoji that some scripts need."""

_UNPRINTABLE = frozenset(["Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"])
"""Unicode's categories of controls, formats, and what is no character or no space in a line."""


def printable(text: str) -> str:
    r"""Return text with each character that does something else than be read as its escape.

    The name of a file and a caption may hold anything: an escape sequence that recolours or clears
    a terminal, a mark that turns the order of what follows, a control at which a drawing library
    aborts, a byte that is no text at all. New lines stay.

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
