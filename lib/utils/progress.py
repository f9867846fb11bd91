"""Progress of long work: a bar in a terminal, plain lines elsewhere, a log under ``study``.

A notebook that is executed for the book must not contain progress output, so the ``study`` command
sets ``$STUDY_PROGRESS_LOG`` to a file, and shows the lines that are written to it in its terminal.
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO, TypeVar

from lib.utils.text import printable

LOG_VARIABLE = "STUDY_PROGRESS_LOG"
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LOG_LINES = 1.0

T = TypeVar("T")


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of ``iterable`` and show how many are done.

    Args:
        iterable: The items.
        description: The work, in a few words.
        total: The number of items; by default ``len(iterable)`` if it has one.

    >>> list(track("ab", "letters"))
    ['a', 'b']
    """
    if total is None:
        with suppress(TypeError):
            total = len(iterable)  # type: ignore[arg-type]
    with Progress(description, total) as progress:
        for item in iterable:
            yield item
            progress.advance()


def say(text: str) -> None:
    """Write a line to the log, if there is one, else to the notebook or terminal."""
    log = os.environ.get(LOG_VARIABLE)
    _write_line(text, Path(log) if log else None)


class Progress:
    """A context manager that shows the progress of some work. Threads may share one.

    Args:
        description: The work, in a few words.
        total: The number of steps, or None if it is unknown.

    >>> with Progress("train", total=2) as progress:
    ...     progress.advance(note="loss 0.71")
    ...     progress.advance(note="loss 0.65")
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        self.description = description
        self.total = total
        self.done = 0
        self._note = ""
        self._lock = threading.Lock()
        self._view: _View | None = None

    def __enter__(self) -> Self:
        self._view = _choose_view()
        self._view.start(self)
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps as done; ``note`` is a short text on the newest one."""
        with self._lock:
            self.done += n
            self._note = note or self._note
            if self._view is not None:
                self._view.update(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            view, self._view = self._view, None
            if view is not None:
                view.stop(self, failed=kind is not None)

    @property
    def note(self) -> str:
        """The newest note given to :meth:`advance`."""
        return self._note


class _View(Protocol):
    """A way to show progress; called under the lock of its ``progress``."""

    def start(self, progress: Progress) -> None: ...
    def update(self, progress: Progress) -> None: ...
    def stop(self, progress: Progress, failed: bool) -> None: ...


def _choose_view() -> _View:
    if log := os.environ.get(LOG_VARIABLE):
        return _Lines(SECONDS_BETWEEN_LOG_LINES, log=Path(log))
    if sys.stderr.isatty():
        return _Bar()
    return _Lines(SECONDS_BETWEEN_LINES)


class _Lines:
    """Plain lines: at most one per ``interval`` seconds, and always the last."""

    def __init__(self, interval: float, log: Path | None = None) -> None:
        self.interval = interval
        self.log = log
        self.started = self.written = 0.0

    def start(self, progress: Progress) -> None:
        self.started = self.written = time.monotonic()

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.written >= self.interval:
            self.written = now
            self._write(_line(progress, now - self.started))

    def stop(self, progress: Progress, failed: bool) -> None:
        seconds = time.monotonic() - self.started
        self._write(_line(progress, seconds, "stopped after" if failed else "done in"))

    def _write(self, line: str) -> None:
        _write_line(line, self.log)


class _Bar:
    """A rich bar on standard error, for a person at a terminal."""

    def start(self, progress: Progress) -> None:
        from rich import progress as bars
        from rich.console import Console

        self.bar = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[rate]}", markup=False),
            bars.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(progress.description, total=progress.total, note="", rate="")
        self.started = time.monotonic()
        self.bar.start()

    def update(self, progress: Progress) -> None:
        rate = _rate(progress.done, time.monotonic() - self.started)
        self.bar.update(self.task, completed=progress.done, note=progress.note, rate=rate)

    def stop(self, progress: Progress, failed: bool) -> None:
        self.bar.stop()


def _write_line(line: str, log: Path | None) -> None:
    line = printable(line)
    # The work must not fail because its progress cannot be shown.
    with suppress(OSError):
        if log is not None:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        else:
            print(line, file=_plain_stream(), flush=True)


def _line(progress: Progress, seconds: float, ending: str = "") -> str:
    """Return one line: ``train: 12/100 (12 %), loss 0.31, 1.5 a second, about 80 s left``."""
    share = f" ({100 * progress.done // progress.total} %)" if progress.total else ""
    of_total = "" if progress.total is None else f"/{progress.total}"
    parts = [f"{progress.description}: {progress.done}{of_total}{share}"]
    if progress.note:
        parts.append(progress.note)
    if ending:
        parts.append(f"{ending} {seconds:.0f} s")
    elif progress.done:
        parts.append(_rate(progress.done, seconds))
    if not ending and progress.total and progress.done:
        remaining = seconds * max(progress.total - progress.done, 0) / progress.done
        parts.append(f"about {remaining:.0f} s left")
    return ", ".join(parts).replace("\n", " ")


def _rate(done: int, seconds: float) -> str:
    """Return a rate per second, or per minute if it is small.

    >>> _rate(23, 10.0), _rate(3, 60.0)
    ('2.3 a second', '3.0 a minute')
    """
    rate = done / max(seconds, 1e-3)
    return f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute"


def _plain_stream() -> TextIO:
    # A notebook shows standard error in red, like an error.
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    return sys.stdout if in_notebook else sys.stderr
