"""Work in another process that is killed, interrupted or out of disk space at a random moment.

The process is forked from this one, which has imported everything, so a round is quick. A moment is
either the k-th change on the disk (a file is opened for writing, moved or removed, a folder is made
or removed) or a time. Which of both it is, and its value, are drawn.
"""

import errno
import hashlib
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

KINDS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk")
SECONDS_AT_MOST = 600
"""A start that takes longer counts as blocked by the files of an earlier one."""

FULL = 28
"""Exit status of a process whose error names a full disk."""

_WRITES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "tempfile.mkstemp"})
_GROWS = frozenset({"open", "os.mkdir", "tempfile.mkstemp"})

Work = Callable[[], None]
Hook = Callable[[str], None]


def undisturbed(work: Work, home: Path) -> tuple[int, float]:
    """Do the work; return its number of changes on the disk, and its seconds."""
    begun = time.monotonic()
    counter = home.with_name(f"{home.name}.count")

    def counted() -> None:
        touched = [0]
        _watch(lambda _: touched.__setitem__(0, touched[0] + 1))
        work()
        total = touched[0]
        counter.write_text(str(total))

    code, said = _start(counted, home)
    assert code == 0, f"the undisturbed work failed: {said}"
    return int(counter.read_text()), time.monotonic() - begun


def disturb(work: Work, home: Path, kind: str, moments: int, seconds: float, seed: int) -> bool:
    """Start the work and disturb it at a moment drawn by ``seed``; return whether it failed.

    Args:
        work: As for :func:`undisturbed`.
        home: The folder in which it works; its files are kept.
        kind: One of :data:`KINDS`.
        moments, seconds: What :func:`undisturbed` returned.
        seed: Seed of the moment.
    """
    draw = random.Random(seed)
    by_count = draw.random() < 0.6
    number, delay = draw.randint(1, max(1, moments)), draw.uniform(0, seconds)

    def hit() -> None:
        left = [number]
        if kind == "full disk" and not by_count:
            # A file cannot grow beyond this, so that a write fails in the middle.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            most = draw.choice([0, 100, 1000, 10_000, 100_000])
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        elif kind == "full disk":
            _watch(lambda event: _no_space(left, event))
        elif by_count:
            number_of = getattr(signal, kind)
            _watch(lambda _: _at_count(left, lambda: os.kill(os.getpid(), number_of)))
        work()

    wait = None if by_count or kind == "full disk" else (delay, getattr(signal, kind))
    code, said = _start(hit, home, wait)
    if kind == "full disk":
        assert code in (0, FULL), f"exit status {code}, and no error names the full disk: {said}"
    return code != 0


def finish(work: Work, home: Path) -> None:
    """Start the work again, undisturbed."""
    code, said = _start(work, home)
    assert code == 0, f"started again, it failed: {said}"


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the SHA-256 of each file below ``folder`` whose name has no word of ``but``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(word in path.name for word in but)
    }


def _start(work: Work, home: Path, wait: tuple[float, int] | None = None) -> tuple[int, str]:
    """Run work in a forked process; return its exit status and its output."""
    home.mkdir(parents=True, exist_ok=True)
    # A pipe, not a file, which a full disk would cut; the output fits into the pipe.
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_child(work, home, write)
    os.close(write)
    os.set_blocking(read, False)
    said = b""
    deadline = time.monotonic() + SECONDS_AT_MOST
    strike = None if wait is None else time.monotonic() + wait[0]
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            with suppress(BlockingIOError):
                said += os.read(read, 1 << 16)
            if ended:
                return os.waitstatus_to_exitcode(status), said.decode(errors="replace")[-3000:]
            now = time.monotonic()
            if wait is not None and strike is not None and now >= strike:
                os.kill(child, wait[1])
                strike = None
            if now > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError(f"blocked work: {said.decode(errors='replace')[-3000:]}")
            time.sleep(0.002)
    finally:
        os.close(read)


def _be_child(work: Work, home: Path, out: int) -> None:
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ["STUDY_HOME"] = str(home)
        os.environ["STUDY_RECORDS"] = ""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            work()
            code = 0
        except BaseException:
            code = 1
            text = traceback.format_exc()
            if os.strerror(errno.ENOSPC) in text or os.strerror(errno.EFBIG) in text:
                code = FULL
            os.write(out, text[-3000:].encode())
    finally:
        os._exit(code)


def _watch(hook: Hook) -> None:
    """Call ``hook`` whenever this process is about to change something on the disk."""

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event in _WRITES:
            hook(event)
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                text = str(path)
                if not text.startswith("/dev/") and not text.endswith((".lock", "/lock", "mutex")):
                    hook(event)

    sys.addaudithook(audited)


def _at_count(left: list[int], strike: Callable[[], None]) -> None:
    left[0] -= 1
    if left[0] == 0:
        strike()


def _no_space(left: list[int], event: str) -> None:
    left[0] -= 1
    if left[0] <= 0 and event in _GROWS and threading.current_thread() is threading.main_thread():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
