"""An executor that kills some of its workers."""

import os
import signal
from concurrent.futures import Executor
from pathlib import Path


class Saboteur(Executor):
    """Pass calls on to another executor; some of them kill their worker.

    Args:
        inner: The executor.
        folder: The folder in which a killed worker leaves its mark.
        dies: A function of a call's number and runs; it returns whether the worker dies.
        again: Whether the worker dies every time, not only the first time.
    """

    def __init__(self, inner, folder: Path, dies, again=False):
        self.inner, self.folder, self.dies, self.again = inner, folder, dies, again
        self.workers = inner.workers
        self.calls = 0
        if hasattr(inner, "send"):
            self.send = inner.send

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        if not self.dies(self.calls, args[1]):
            return self.inner.submit(fn, *args)
        return self.inner.submit(die, str(self.folder), self.again, fn, *args)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.inner.shutdown(wait=wait, cancel_futures=cancel_futures)


def die(folder, again, fn, *args):
    """Kill this worker; if one was killed before and ``again`` is false, do the work instead."""
    marks = Path(folder)
    if again or not any(marks.iterdir()):
        (marks / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fn(*args)
