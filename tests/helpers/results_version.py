"""Another results version, as after a change of the numbers of runs."""

import sys

from lib.runs import RESULTS_VERSION


def raise_results_version(monkeypatch, version: int = RESULTS_VERSION + 1) -> None:
    """Set another RESULTS_VERSION in every module of the package that imports it."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "lib" and hasattr(module, "RESULTS_VERSION"):
            monkeypatch.setattr(module, "RESULTS_VERSION", version)
