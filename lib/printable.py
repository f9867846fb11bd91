"""Text from files, made fit for a terminal and a chart: what isn't to be read becomes visible."""

import unicodedata

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
