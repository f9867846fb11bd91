"""Leases: of several processes that share a folder, one alone does each piece of work.

A lease ends with its process, so a killed process blocks no other. One lock per process and a note
of its names, not one lock per name: a sweep on workers holds thousands of names at once, and each
lock takes one of the 1,024 files that a process may usually open.
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
        folder: The folder of the locks and notes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def take(self, names: Sequence[str]) -> Iterator[set[str]]:
        """Hold those of ``names`` that nobody else holds, until the context ends.

        Yields:
            The names that are now held, perhaps none.
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
        """Wait until a holder of one of ``names`` releases it; return at once if there is none."""
        wanted = set(names)
        with FileLock(self._folder / "mutex"):
            lock = next((lock for lock, others in self._live() if wanted & others), None)
        if lock is not None:
            with FileLock(lock):
                pass
            lock.unlink(missing_ok=True)

    def _live(self) -> Iterator[tuple[Path, set[str]]]:
        """Yield the lock and the names of each lease whose holder is alive; remove the others."""
        for lock in sorted(self._folder.glob("*.lock")):
            try:
                with FileLock(lock, timeout=0):
                    _note(lock).unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            except Timeout:
                try:
                    yield lock, set(json.loads(_note(lock).read_text(encoding="utf-8")))
                except (OSError, ValueError):
                    # Its holder is releasing it at this moment.
                    continue


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")
