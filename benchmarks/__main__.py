"""``python -m benchmarks [CASE ...] [--again]``: measure what is not measured yet, write JSON.

Results lie in ``benchmarks/results/measured.json`` and are written after each case, so that a run
that is cut off goes on where it was. Run it on an idle machine.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import recall, step

RESULTS = Path(__file__).parent / "results" / "measured.json"
CASES: dict[str, Callable[[], dict[str, object]]] = {
    "step-128": lambda: step.measure(128),
    "step-1024": lambda: step.measure(1024),
    "recall-1000x5000": lambda: recall.measure(1000, 5000),
    "recall-5000x25000": lambda: recall.measure(5000, 25_000),
    "memory-20000x100000": lambda: recall.memory(20_000, 100_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; default, all")
    parser.add_argument("--again", action="store_true", help="measure what has a result, too")
    given = parser.parse_args()
    unknown = sorted({*given.case} - {*CASES})
    if unknown:
        parser.error(f"no case is called {unknown[0]!r}; the cases are {', '.join(CASES)}")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.case or CASES:
        if name in found and not given.again:
            print(f"{name}: measured before")
            continue
        found[name] = {
            **CASES[name](),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: {json.dumps(found[name])}", flush=True)


main()
