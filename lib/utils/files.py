"""The study's folder for computed files, and atomic writes.

Partial files have locks without filelock, which needs a second file that a kill would leave behind.
"""

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import platformdirs

if os.name == "posix":
    import fcntl


def home() -> Path:
    """Return the folder of this machine's features, runs, tables and downloads.

    It is ``$STUDY_HOME`` if that is set, else the user's cache folder, which all clones of the
    study share.
    """
    if configured := os.environ.get("STUDY_HOME"):
        return Path(configured).expanduser().absolute()
    return platformdirs.user_cache_path("variance-study")


def require_writable(folder: Path) -> None:
    """Try to write where a folder is to lie, before work whose result goes there; make nothing.

    Raises:
        OSError: The folder cannot be made or written; the error names a path.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    with named(place), tempfile.TemporaryFile(prefix=".try-", dir=place) as file:
        file.write(b"0")
        file.flush()


def explain(error: OSError) -> str:
    """Return an error of the file system as its path and its reason.

    >>> explain(FileNotFoundError(2, "No such file or directory", "runs.csv"))
    'runs.csv: No such file or directory'
    """
    path, reason = error.filename2 or error.filename, error.strerror or str(error)
    return f"{path}: {reason}" if path else reason


@contextmanager
def named(target: Path) -> Iterator[None]:
    """Add the path, and the room that is left, to an error of a write that names neither."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(target)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                room = shutil.disk_usage(target.parent).free / 2**20
                error.strerror = f"{error.strerror} ({room:,.0f} MiB are free)"
        raise


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, and move it onto ``target`` on success.

    A reader sees the old file or the whole new one: the data reach the disk before the rename does.
    On an exception the partial file is removed and ``target`` does not change. The next writer of
    ``target`` removes the partial file of a killed process.
    """
    with _partial(target) as partial:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())


def write_atomic(target: Path, data: bytes | str) -> None:
    """Write ``data`` to ``target``, whole or not at all; text is written as UTF-8."""
    with atomic_path(target) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target`` to fill, and move it there on success.

    On an exception the folder is removed. ``target`` must be missing or empty.
    """
    with _partial(target, folder=True) as partial:
        yield partial


@contextmanager
def _partial(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a new file or folder beside ``target``, and move it there on success.

    A running writer locks its partial file; one that is not locked is abandoned and removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if (lock := _lock(abandoned, wait=False)) is not None:
            _remove(abandoned)
            os.close(lock)
    partial, lock = _new_partial(target, folder)
    os.umask(mask := os.umask(0))  # Reading the umask requires setting it.
    try:
        with named(target):
            yield partial
            partial.chmod((0o777 if folder else 0o666) & ~mask)
            partial.replace(target)
    finally:
        _remove(partial)
        if lock is not None:
            os.close(lock)


def _new_partial(target: Path, folder: bool) -> tuple[Path, int | None]:
    """Make an empty file or folder beside ``target``; return it and the handle of its lock."""
    while True:
        prefix, suffix = f".{target.name}.", ".partial"
        if folder:
            partial = Path(tempfile.mkdtemp(suffix, prefix, target.parent))
        else:
            handle, name = tempfile.mkstemp(suffix, prefix, target.parent)
            os.close(handle)
            partial = Path(name)
        lock = _lock(partial, wait=True)
        # Another writer may have removed the file as abandoned before it was locked.
        if lock is not None or partial.exists():
            return partial, lock


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a file or folder until the returned handle is closed.

    None if another process holds the lock, the path is gone, or the system has no such locks.
    """
    if os.name != "posix":
        return None
    with suppress(OSError), ExitStack() as stack:
        handle = os.open(path, os.O_RDONLY)
        stack.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        path.stat()  # Fails if the path was removed or moved to its target before the lock.
        stack.pop_all()
        return handle
    return None


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
