"""Another version of the results, as a change of the code's numbers would make it."""

import sys

from lib.runs import RESULTS_VERSION


def raise_results_version(monkeypatch, version: int = RESULTS_VERSION + 1) -> None:
    """Give every module of the package that holds RESULTS_VERSION another one."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "lib" and hasattr(module, "RESULTS_VERSION"):
            monkeypatch.setattr(module, "RESULTS_VERSION", version)
