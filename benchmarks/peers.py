"""The libraries that are compared with, each of them optional."""

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
"""All of them, as `pip install` names them; `pip install '.[bench]'` installs them."""


def installed(package: str) -> str | None:
    """Return a package's version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def absent() -> list[str]:
    """Return the peers that are not installed."""
    return [peer for peer in PEERS if installed(peer) is None]
