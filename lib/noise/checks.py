"""The severities of noise, and the check of kinds and severities."""

from collections.abc import Collection

SEVERITIES = (1, 2, 3, 4, 5)
"""From the weakest noise to the strongest.

>>> SEVERITIES[-1]
5
"""


def check_noise(kind: str, severity: int, known: Collection[str]) -> None:
    """Check a kind of noise and its severity.

    Raises:
        ValueError: ``kind`` is not in ``known``, or ``severity`` not in :data:`SEVERITIES`.
    """
    if kind not in known:
        raise ValueError(f"noise {kind!r} is unknown; use one of {', '.join(known)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity = {severity!r}; use a whole number from 1 to 5")
