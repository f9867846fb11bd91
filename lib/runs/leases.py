"""Leases, by which processes that share a folder do each piece of work only once.

A lease ends with its process, so a killed process does not block others. A process has one lock and
a note of its names, not one lock per name: a sweep on workers holds thousands of names at once, and
each lock takes one of the 1,024 files that a process may usually open.
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
        """Hold the free ones of ``names`` until the context ends; yield them, perhaps none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{uuid.uuid4().hex}.lock"
        lock, note = FileLock(path), _note(path)
        with FileLock(self._folder / "mutex"):
            taken = set(names).difference(*(others for _, others in self._live()))
            lock.acquire()
            note.write_text(json.dumps(sorted(taken)), encoding="utf-8")
        try:
            yield taken
        finally:
            note.unlink(missing_ok=True)
            lock.release()
            path.unlink(missing_ok=True)

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
                    # The holder is just releasing it.
                    continue


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")
