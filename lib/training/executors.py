"""Where a sweep's runs are trained: in this process, in others of this machine, or on a cluster.

A sweep takes any :class:`concurrent.futures.Executor`. Those that have a name here are
opened, repaired after a loss, and stopped with the sweep.
"""

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
SECONDS_TO_JOIN = 120
"""How long a cluster may take until its first worker is there."""
IDLE_SECONDS = 300
"""After which a process without work ends; the next sweep starts another."""

T = TypeVar("T")


class ExecutorError(ValueError):
    """There is no executor of that name, or what it needs isn't here; the text says what to do."""


def check_executor(name: str) -> str:
    """Return ``name`` if :func:`open_executor` can open it.

    Raises:
        ExecutorError: It is no such name, or a package is missing.

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
    """Yield the executor that is meant, None for this very process.

    An executor that is given stays open; one that is named is stopped when the context ends in an
    exception, what it is doing included.

    Args:
        executor: An executor, a name, or None for what ``$STUDY_EXECUTOR`` says.

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
    own: Executor
    if name.startswith("dask"):
        own = Cluster(name.removeprefix("dask://"))
    else:
        kind, _, count = name.partition(":")
        workers = int(count) if count else cores()
        own = Processes(workers) if kind == "processes" else ThreadPoolExecutor(workers)
    try:
        yield own
    except BaseException:
        own.shutdown(wait=False, cancel_futures=True)
        raise
    own.shutdown()


def workers_of(executor: Executor) -> int:
    """Return how many tasks an executor works on at a time, a guess where it doesn't tell."""
    told = getattr(executor, "workers", None) or getattr(executor, "_max_workers", None)
    return int(told) if told else cores()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Processes(Executor):
    """Processes of this machine, which share its cores. One that dies is replaced.

    They outlive a sweep for some minutes, so that the next one of the same notebook finds them.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Hand a call to a process; a pool that a loss has broken is made anew."""
        future: Future[T] = self._pool().submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, if what they do is to be cancelled; else leave them to the next."""
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
    """The workers of a dask.distributed scheduler.

    The scheduler gives what a lost worker was doing to another one, as often as its configuration
    (``distributed.scheduler.allowed-failures``) says.

    Args:
        address: ``HOST:PORT``, or ``/FILE.json`` for a scheduler file.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client

        where = {"scheduler_file": address} if address.startswith("/") else {"address": address}
        try:
            self._client = Client(**where, set_as_default=False, timeout=SECONDS_TO_JOIN)
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
        # Trained again when asked for again: a key of the call's content would be remembered.
        self._executor = self._client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Threads of all workers that are there now."""
        threads: int = sum(self._client.nthreads().values())
        return max(1, threads)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Hand a call to a worker."""
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        return future

    def send(self, data: Any) -> Any:
        """Put data on every worker, once; what is returned stands for them in :meth:`submit`.

        Workers hand the data on to each other, and to one that joins later.
        """
        return self._client.scatter(data, broadcast=True, hash=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what it still does for this sweep is cancelled."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def _begin(threads: int, parent: int) -> None:
    """Start as a worker process."""
    import torch

    # Ctrl-C reaches every process of a terminal; the sweep's own decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
