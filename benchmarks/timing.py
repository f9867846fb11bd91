"""Measure competitors in turns, so that whatever else the machine does meets them alike."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

Step = Callable[[], object]


def shortest(steps: Mapping[str, Step], seconds: float = 20.0, least: int = 5) -> dict[str, float]:
    """Return each step's shortest time in seconds, of as many rounds as fit into ``seconds``."""
    best = dict.fromkeys(steps, float("inf"))
    for step in steps.values():
        step()
    begun, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - begun < seconds:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


def ratios(steps: Mapping[str, Step], base: str, **options: float) -> dict[str, float]:
    """Return each step's shortest time as a multiple of that of ``base``."""
    best = shortest(steps, **options)  # type: ignore[arg-type]
    return {name: round(value / best[base], 4) for name, value in best.items()}


def peer(package: str) -> str | None:
    """Return a package's name and version, or None where it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def peak_mib(code: str) -> float:
    """Return the most memory in MiB that a process of its own held while it ran ``code``.

    What it held before, its imports above all, counts: the figure is the whole process's.
    """
    report = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) / 1024
