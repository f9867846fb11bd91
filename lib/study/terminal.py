"""The display of progress in the terminal while notebooks run."""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lib.utils.progress import SECONDS_BETWEEN_LINES

SECONDS_BETWEEN_LOOKS = 0.3


class Board:
    """The progress through several notebooks, with the newest line of the one that runs.

    In a terminal it is one live bar; elsewhere plain lines, at most one every ten seconds.

    Args:
        total: The number of notebooks.
        log: A file to which every line is appended as well.
    """

    def __init__(self, total: int, log: Path | None = None) -> None:
        self.total = total
        self.done = 0
        self.log = log

    @contextmanager
    def notebook(self, name: str) -> Iterator[Path]:
        """Show ``name`` as running; yield the file whose appended lines are shown as they come."""
        started = time.monotonic()
        title = f"[{self.done + 1}/{self.total}] {name}"
        with (
            tempfile.TemporaryDirectory(prefix="study-") as scratch,
            self._view(title) as show,
            follow(Path(scratch) / "progress.log", self._kept(name, show)),
        ):
            yield Path(scratch) / "progress.log"
        self.done += 1
        ended = f"done in {time.monotonic() - started:.0f} s"
        typer.echo(f"{title}: {ended}", err=True)
        self._kept(name, lambda line: None)(ended)

    def _kept(self, name: str, show: Callable[[str], None]) -> Callable[[str], None]:
        """Return a function that shows a line and appends it, with its notebook, to the log."""
        log = self.log
        if log is None:
            return show

        def show_and_keep(line: str) -> None:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{name}: {line}\n")
            show(line)

        return show_and_keep

    @contextmanager
    def _view(self, title: str) -> Iterator[Callable[[str], None]]:
        if not sys.stderr.isatty():
            typer.echo(f"{title}: running", err=True)
            yield _thinned(lambda line: typer.echo(f"  {line}", err=True))
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(title, total=self.total, completed=self.done, line="")
            yield lambda line: progress.update(task, line=line)


@contextmanager
def follow(log: Path, show: Callable[[str], None]) -> Iterator[None]:
    """Call ``show`` with each whole line that is appended to ``log`` while the context is open."""
    stopped = threading.Event()

    def look() -> None:
        position, rest = 0, ""
        ended = False
        while not ended:
            # After the end look once more, for lines written since the last look.
            ended = stopped.wait(SECONDS_BETWEEN_LOOKS)
            if not log.exists():
                continue
            with log.open(encoding="utf-8", errors="replace") as stream:
                stream.seek(position)
                *lines, rest = (rest + stream.read()).split("\n")
                position = stream.tell()
            for line in lines:
                show(line)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _thinned(show: Callable[[str], None]) -> Callable[[str], None]:
    shown = time.monotonic()

    def show_some(line: str) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            show(line)

    return show_some
