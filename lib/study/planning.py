"""``study run --dry-run``: how many runs notebooks need, and how long those to train take."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib.study.catalogue import Notebook, Values
from lib.study.execution import NotebookFailure, execute
from lib.utils.version import PLAN_VARIABLE


def plans(notebooks: Sequence[Notebook], settings: Mapping[str, Values]) -> Iterator[str]:
    """Yield a line per notebook, and one for all if there are several.

    Args:
        notebooks: What would be run.
        settings: Name to checked parameters.

    Raises:
        NotebookFailure: A notebook fails before anything in it had to be made up.
    """
    # These import torch, for which other commands need not wait.
    from lib.runs import Store
    from lib.runs.plan import Plan, expected_seconds, read_plan

    store = Store()
    everything = store.records()
    here = [record for record in everything if not store.is_published(record.config)]

    def line(name: str, plan: Plan) -> str:
        least, due = "at least " if plan.more else "", len(plan.due)
        counted = (
            f"{least}{plan.finished + due:,} runs, {plan.finished:,} finished, {due:,} to train"
        )
        if not due:
            return f"{name}: {counted}"
        if (seconds := expected_seconds(plan.due, here)) is not None:
            return f"{name}: {counted}, about {_written(seconds)}"
        if (seconds := expected_seconds(plan.due, everything)) is not None:
            there = "on the machine of the published runs"
            return f"{name}: {counted}, about {_written(seconds)} {there}"
        return f"{name}: {counted}; no finished run tells how long"

    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        whole = Path(folder) / "all.plan"
        for notebook in notebooks:
            own = Path(folder) / f"{notebook.name}.plan"
            copy = Path(folder) / notebook.path.name
            try:
                execute(notebook.path, copy, settings[notebook.name], {PLAN_VARIABLE: str(own)})
                plan = read_plan(own)
            except NotebookFailure:
                # Made-up numbers may be what the notebook fails with.
                plan = replace(read_plan(own), more=True)
                if not (plan.due or read_plan(own).more):
                    raise
            with whole.open("a", encoding="utf-8") as file:
                file.write(own.read_text(encoding="utf-8") if own.exists() else "")
            yield line(notebook.name, plan)
        if len(notebooks) > 1:
            yield line("together, each run once", read_plan(whole))


def _written(seconds: float) -> str:
    """Write how long runs take.

    >>> _written(40.2), _written(3600.0)
    ('40 s', '60 min')
    """
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60):,} min"
