"""Executors that train runs: threads or processes of this machine, or a dask cluster."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

from lib.utils.version import EXECUTOR_VARIABLE

NAMES = "serial, processes, processes:N, threads, threads:N, dask://HOST:PORT, dask:///FILE.json"
SECONDS_TO_ANSWER, SECONDS_TO_JOIN = 5, 120
"""How long to wait for a cluster's first worker."""
IDLE_SECONDS = 300
"""After this time without work a process ends."""

T = TypeVar("T")


class ExecutorError(ValueError):
    """An executor's name is unknown, a package is missing, or no cluster answers."""


def check_executor(name: str) -> str:
    """Return ``name`` if :func:`open_executor` can open it.

    Raises:
        ExecutorError: The name is unknown, or a package is missing.

    >>> check_executor("processes:4")
    'processes:4'
    """
    if not re.fullmatch(r"serial|(processes|threads)(:[1-9]\d*)?|dask:///?[^/].*", name):
        raise ExecutorError(f"there is no executor {name!r}; write one of {NAMES}")
    package, extra = ("distributed", "cluster") if name.startswith("dask") else ("loky", "study")
    if not name.startswith(("serial", "threads")) and find_spec(package) is None:
        raise ExecutorError(
            f"the executor {name!r} needs {package}: pip install 'variance-study[{extra}]'"
        )
    return name


@contextmanager
def open_executor(executor: Executor | str | None) -> Iterator[Executor | None]:
    """Yield an executor, or None for this process.

    An executor that is passed stays open. One that is named is shut down at the end; if the context
    ends in an exception, its work is cancelled.

    Args:
        executor: An executor, a name, or None for the name in ``$STUDY_EXECUTOR``.

    Raises:
        ExecutorError: As :func:`check_executor`; or no worker joins the cluster in time.
    """
    if isinstance(executor, Executor):
        yield executor
        return
    name = check_executor(executor or os.environ.get(EXECUTOR_VARIABLE) or "serial")
    if name == "serial":
        yield None
        return
    kind, _, rest = name.partition(":")
    opened: Executor
    if kind == "dask":
        opened = Cluster(rest.removeprefix("//"))
    else:
        workers = int(rest) if rest else cores()
        opened = Processes(workers) if kind == "processes" else ThreadPoolExecutor(workers)
    try:
        yield opened
    except BaseException:
        opened.shutdown(wait=False, cancel_futures=True)
        raise
    opened.shutdown()


def workers_of(executor: Executor) -> int:
    """Return how many tasks an executor runs at a time; if unknown, the number of cores."""
    workers = getattr(executor, "workers", None) or getattr(executor, "_max_workers", None)
    return int(workers) if workers else cores()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Processes(Executor):
    """Processes of this machine that share its cores; one that dies is replaced. Idle processes are
    kept for some minutes, so that the next training of a notebook starts at once.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run a call in a process, of a new pool if the old one is broken."""
        future: Future[T] = self._pool().submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes if ``cancel_futures``; otherwise keep them for the next training."""
        if cancel_futures:
            self._pool().shutdown(wait=wait, kill_workers=True)

    def _pool(self) -> Any:
        from loky import get_reusable_executor

        threads = max(1, cores() // self.workers)
        return get_reusable_executor(
            max_workers=self.workers,
            timeout=IDLE_SECONDS,
            initializer=_begin,
            initargs=(threads, os.getpid()),
        )


class Cluster(Executor):
    """The workers of a dask.distributed scheduler, which gives the work of a lost worker to another
    one, up to ``distributed.scheduler.allowed-failures`` times.

    Args:
        address: ``HOST:PORT``, or ``/FILE.json`` for a scheduler file.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client

        where = {"scheduler_file": address} if address.startswith("/") else {"address": address}
        try:
            self._client = Client(**where, set_as_default=False, timeout=SECONDS_TO_ANSWER)
        except (OSError, ValueError) as error:
            raise ExecutorError(f"no dask scheduler answers at {address}: {error}") from error
        try:
            self._client.wait_for_workers(1, timeout=SECONDS_TO_JOIN)
        except TimeoutError as error:
            self._client.close()
            raise ExecutorError(
                f"no worker has joined the scheduler at {address} for {SECONDS_TO_JOIN} s: start "
                f"some with `dask worker {address} --nthreads 1`"
            ) from error
        # With pure=True, an equal call would return the earlier result instead of training.
        self._executor = self._client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Threads of all workers that have joined."""
        threads: int = sum(self._client.nthreads().values())
        return max(1, threads)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run a call on a worker."""
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        return future

    def send(self, data: Any) -> Any:
        """Copy data to every worker, also to those that join later; return a handle to submit."""
        return self._client.scatter(data, broadcast=True, hash=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; its remaining work is cancelled."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def _begin(threads: int, parent: int) -> None:
    """Start as a worker process."""
    import torch

    # Ctrl-C reaches every process of a terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, even if killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
