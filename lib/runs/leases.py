"""Who is at work on what: two processes that share a folder do each piece of work once.

A lease lives no longer than its process, so one that was killed holds nobody up.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Leases:
    """Leases on names, such as run ids, that all processes with the same folder respect.

    Args:
        folder: Where they are noted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def take(self, names: Sequence[str]) -> Iterator[set[str]]:
        """Hold those of ``names`` that nobody else holds, for as long as the context lasts.

        Yields:
            The names that are held, perhaps none.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        own = FileLock(self._folder / f"{uuid.uuid4().hex}.lock")
        note = _note(Path(own.lock_file))
        with FileLock(self._folder / "mutex"):
            held = {name for _, others in self._live() for name in others}
            taken = set(names) - held
            own.acquire()
            note.write_text(json.dumps(sorted(taken)), encoding="utf-8")
        try:
            yield taken
        finally:
            note.unlink(missing_ok=True)
            own.release()
            Path(own.lock_file).unlink(missing_ok=True)

    def wait(self, names: Iterable[str]) -> None:
        """Return when somebody who held one of ``names`` has let go of it, or nobody holds any."""
        wanted = set(names)
        with FileLock(self._folder / "mutex"):
            lock = next((lock for lock, others in self._live() if wanted & others), None)
        if lock is not None:
            with FileLock(lock):
                pass
            lock.unlink(missing_ok=True)

    def _live(self) -> Iterator[tuple[Path, set[str]]]:
        """Yield the lock and the names of each lease whose holder lives; remove the others."""
        for lock in sorted(self._folder.glob("*.lock")):
            try:
                with FileLock(lock, timeout=0):
                    _note(lock).unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            except Timeout:
                try:
                    yield lock, set(json.loads(_note(lock).read_text(encoding="utf-8")))
                except (OSError, ValueError):
                    # Its holder is letting go of it at this moment.
                    continue


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")
