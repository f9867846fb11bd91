"""The memory that a piece of code takes, in a process of its own."""

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
    # A peer that wants more must not take the machine's memory from everything else.
    resource.setrlimit(resource.RLIMIT_DATA, (int({most}), int({most})))
{before}
imports = held("VmRSS")
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
said = work()
done.set()
watcher.join()
# Linux's ru_maxrss begins with what the parent held when it started this process.
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
        own: Without pages of files, which the system can drop at any time; None where it can't say.
        imports: What it held before the work.
        said: What the code returned, a JSON value.
        after: What was returned by the code that ran when the peak had been taken.
    """

    peak: float
    own: float | None
    imports: float | None
    said: Any
    after: Any


def peak(before: str, code: str, after: str, seconds: float) -> Peak | str:
    """Run ``code``, the body of a function, after ``before``; return what it held at most.

    Args:
        before: What makes its inputs.
        code: What is measured.
        after: The body of a function that runs when the peak has been taken.
        seconds: After which it is stopped.

    Returns:
        The peak; or, where it did not end well, why in a few words.
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
