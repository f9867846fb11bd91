"""Where the study keeps what it computes, and how a file is written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return the folder of everything computed on this machine: features, runs, downloads.

    It is ``$STUDY_HOME`` where that is set, else the user's cache folder, so that a second clone of
    the study finds what the first one computed.
    """
    configured = os.environ.get("STUDY_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    return platformdirs.user_cache_path("variance-study")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, and move it onto ``target`` on success.

    A reader sees the old file or the whole new one, never a part: the data reach the disk before
    the rename does. On an exception the partial file is removed and ``target`` left as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(target: Path, data: bytes | str) -> None:
    """Write ``data`` to ``target``, whole or not at all; text is written as UTF-8."""
    with atomic_path(target) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
