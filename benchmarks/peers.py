"""The libraries in the comparisons, all of them optional."""

from importlib.metadata import PackageNotFoundError, version

PEERS = (
    "faiss-cpu",
    "joblib",
    "lightly",
    "open_clip_torch",
    "pytorch-metric-learning",
    "ranx",
    "torchmetrics",
)
"""Their names for `pip install`; `pip install '.[bench]'` installs all of them."""


def installed(package: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def absent() -> list[str]:
    """Return the peers that are not installed."""
    return [peer for peer in PEERS if installed(peer) is None]
