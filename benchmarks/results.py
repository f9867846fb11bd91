"""The file of a case's results, with the machine and the versions behind them."""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import PEERS, absent, installed
from lib.utils.files import write_atomic

Row = Mapping[str, str | float | int | None]


def write(folder: Path, case: str, rows: Sequence[Row], *, quick: bool) -> Path:
    """Write a case's rows to ``folder``, whole or not at all; return the file."""
    content = {
        "case": case,
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "machine": machine(),
        "versions": versions(),
        "absent": absent(),
        "rows": [{name: _rounded(value) for name, value in row.items()} for row in rows],
    }
    path = folder / f"{case}.json"
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def machine() -> dict[str, str | int | float]:
    """Return the processor, cores, memory and threads, on which a ratio may depend."""
    affine = hasattr(os, "sched_getaffinity")
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, torch, numpy, this package and the installed peers."""
    found = {name: installed(name) for name in ("variance-study", "torch", "numpy", *PEERS)}
    return {"python": platform.python_version()} | {k: v for k, v in found.items() if v}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _rounded(value: Any) -> Any:
    """Keep four significant digits: more would be noise."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
