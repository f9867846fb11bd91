"""The memory that code takes, measured in a separate process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MOST = 12 * 2**30
"""Bytes that a measured process may take: enough for a machine of 16 GiB."""
_WATCHED = """
import json, resource, sys, threading, time

def held(field):
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))
    except (OSError, StopIteration):
        return None

most, done = [0.0], threading.Event()

def watch():
    while not done.wait(0.01):
        most[0] = max(most[0], held("RssAnon") or 0.0)

def work():
    {code}

def later():
    {after}

if sys.platform == "linux":
    # A peer must not exhaust the machine's memory.
    resource.setrlimit(resource.RLIMIT_DATA, (int({most}), int({most})))
{before}
imports = held("VmRSS")
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
said = work()
done.set()
watcher.join()
# Linux's ru_maxrss starts at the parent's memory, so VmHWM is used if there is one.
peak = held("VmHWM")
if peak is None:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
print(json.dumps(dict(peak=peak, own=most[0] or None, imports=imports, said=said, after=later())))
"""


@dataclass(frozen=True)
class Peak:
    """The most memory that a process held, in MiB.

    Attributes:
        peak: Everything: imports, and the pages of mapped files that were in memory.
        own: Without pages of files, which the system can drop at any time; None if unknown.
        imports: Memory before the work.
        said: The JSON value that the code returned.
        after: The value of the code that ran after the peak was taken.
    """

    peak: float
    own: float | None
    imports: float | None
    said: Any
    after: Any


def peak(before: str, code: str, after: str, seconds: float) -> Peak | str:
    """Run ``code``, the body of a function; return its peak of memory, or why it failed.

    Args:
        before: Code that makes the inputs.
        code: The body of the measured function.
        after: The body of a function that runs after the peak was taken.
        seconds: Time after which the process is stopped.
    """
    bodies = {"code": code, "after": after}
    indented = {name: body.strip().replace("\n", "\n    ") for name, body in bodies.items()}
    script = _WATCHED.format(before=before, most=MOST, **indented)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True, text=True, check=True, timeout=seconds, cwd=ROOT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return f"killed by signal {-error.returncode}, most often for lack of memory"
        last = (error.stderr.strip().splitlines() or ["failed"])[-1]
        memory = any(word in last for word in ("allocate memory", "MemoryError", "bad_alloc"))
        return f"needs more than {MOST / 2**30:.0f} GiB" if memory else last
    return Peak(**json.loads(done.stdout.splitlines()[-1]))
