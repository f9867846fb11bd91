"""Where the study keeps what it computes, and how a file is written whole or not at all."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

if os.name == "posix":
    import fcntl


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
    the rename does. On an exception the partial file is removed and ``target`` left as it was; what
    a killed process left is removed by the next one that writes ``target``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    handle, partial = _new_partial(target)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def write_atomic(target: Path, data: bytes | str) -> None:
    """Write ``data`` to ``target``, whole or not at all; text is written as UTF-8."""
    with atomic_path(target) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target`` to fill, and move it there on success.

    On an exception it is removed. ``target`` must not exist, or be empty.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    handle, partial = _new_partial(target, folder=True)
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _new_partial(target: Path, *, folder: bool = False) -> tuple[int | None, Path]:
    """Make an empty file or folder beside ``target``; it is locked until its handle is closed."""
    while True:
        prefix, suffix = f".{target.name}.", ".partial"
        if not folder:
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=suffix)
        else:
            name = tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=suffix)
            if os.name != "posix":
                return None, Path(name)
            handle = os.open(name, os.O_RDONLY)
        # Between its making and its locking, another process may take it for an abandoned one.
        if not _lock(handle, wait=True) or _is_at(handle, Path(name)):
            return handle, Path(name)
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    """Remove what writers of ``target`` left that were killed: their locks died with them."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if _lock(handle, wait=False) and _is_at(handle, path):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock a file; False where another process holds it, or the system has no such locks."""
    if os.name != "posix":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
