"""What a kind of noise and its severity may be."""

from collections.abc import Collection

SEVERITIES = (1, 2, 3, 4, 5)
"""From the weakest noise to the strongest.

>>> SEVERITIES[-1]
5
"""


def check_noise(kind: str, severity: int, known: Collection[str]) -> None:
    """Refuse a kind that is none of the ``known``, and a severity that there is not.

    Raises:
        ValueError: Either is refused; the text names it and what there is.
    """
    if kind not in known:
        raise ValueError(f"noise {kind!r} is unknown; use one of {', '.join(known)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity = {severity!r}; use a whole number from 1 to 5")
