"""Work on the CPU in parts: each thread takes whole parts, instead of a share of each operation.

Torch splits every operation over its threads and waits for the slowest. If a core is busy with
another program, counts of a large gallery, which are thousands of short operations, would wait most
of the time.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

PARTS_AT_ONCE = 8
"""Parts in memory at once; threads beyond them share the operations of a part."""
_LOCK = Lock()

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_parts(
    work: Callable[[Part], Result],
    parts: Iterable[Part],
    take: Callable[[Result], object],
    device: torch.device,
) -> None:
    """Call ``take(work(part))`` for each part, in order.

    Args:
        work: Called in threads of its own on a CPU with several; it must change nothing that
            another part uses.
        parts: What ``work`` takes.
        take: Called in this thread.
        device: Of the tensors. One that is no CPU gets no threads.
    """
    parts = list(parts)
    threads = torch.get_num_threads()
    # A call within a part, or beside another call, finds the threads taken.
    if device.type != "cpu" or threads == 1 or not _LOCK.acquire(blocking=False):
        for part in parts:
            take(work(part))
        return
    workers = min(threads, len(parts), PARTS_AT_ONCE)
    # New threads take over this number; it is no matter of one thread alone.
    torch.set_num_threads(max(1, threads // PARTS_AT_ONCE))
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for result in pool.map(work, parts):
                take(result)
    finally:
        torch.set_num_threads(threads)
        _LOCK.release()
