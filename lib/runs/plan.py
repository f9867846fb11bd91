"""What a notebook would train, without training it.

A plan executes the notebook with made-up numbers in place of the runs that are not finished: how
many runs a notebook asks for does not depend on what they reach.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from lib.runs.config import RunConfig
from lib.runs.record import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunRecord
from lib.utils.seeds import generator

RUN, MORE = "run", "more"


@dataclass(frozen=True)
class Plan:
    """What notebooks ask for.

    Attributes:
        finished: Number of runs that are finished.
        due: The runs to train.
        more: Whether something follows that cannot be planned, such as heads that are trained again
            for a figure.
    """

    finished: int
    due: tuple[RunConfig, ...]
    more: bool


class NotPlannedError(RuntimeError):
    """A plan has come to something that must be computed from trained heads or from a corpus."""


def note_runs(
    path: Path, records: Mapping[RunConfig, RunRecord | None]
) -> dict[RunConfig, RunRecord]:
    """Add runs to a plan; return their records, made up for those that are not finished."""
    with path.open("a", encoding="utf-8") as file:
        for config, record in records.items():
            entry = {"finished": record is not None, "config": config.model_dump(mode="json")}
            file.write(f"{RUN} {json.dumps(entry)}\n")
    return {config: record or made_up(config) for config, record in records.items()}


def stop(path: Path, what: str) -> None:
    """Note that something follows that cannot be planned, and end the plan.

    Raises:
        NotPlannedError: Always.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{MORE} {what}\n")
    raise NotPlannedError(what)


def read_plan(path: Path) -> Plan:
    """Read what executions have added to a file; a run that several ask for counts once."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    asked: dict[RunConfig, bool] = {}
    for line in lines:
        kind, _, text = line.partition(" ")
        if kind == RUN:
            entry = json.loads(text)
            asked[RunConfig.model_validate(entry["config"])] = entry["finished"]
    due = tuple(config for config, finished in asked.items() if not finished)
    return Plan(len(asked) - len(due), due, any(line.startswith(MORE) for line in lines))


def expected_seconds(due: Sequence[RunConfig], finished: Iterable[RunRecord]) -> float | None:
    """Return about how long runs take, from what finished ones of the same towers and batches took
    per step; of other batches, if there are none of these; None if none have these towers."""
    taken: dict[tuple[str, int], list[float]] = {}
    for record in finished:
        if steps := len(record.steps):
            taken.setdefault(_kind(record.config), []).append(record.seconds / steps)
    total = 0.0
    for config in due:
        trained = _kind(config)[0]
        alike = taken.get(_kind(config)) or [
            seconds for (other, _), found in taken.items() if other == trained for seconds in found
        ]
        if not alike:
            return None
        total += median(alike) * max(1, steps_of(config))
    return total


def steps_of(config: RunConfig) -> int:
    """Return the number of steps of a run."""
    return config.epochs * math.ceil(config.train_images / config.batch_size)


def made_up(config: RunConfig) -> RunRecord:
    """Return a record of made-up numbers with the shapes of the run's own."""
    draws = generator(config.seed, "plan", config.run_id)
    epochs = draws.uniform(5, 15, (max(1, config.epochs), len(EPOCH_COLUMNS)))
    steps = draws.uniform(0.9, 1.1, (steps_of(config), len(STEP_COLUMNS))).astype(np.float32)
    return RunRecord(
        config=config,
        corpus_fingerprint="",
        best_epoch=1 + int(np.argmax(epochs[:, -1])),
        test={name: float(draws.uniform(5, 15)) for name in TEST_COLUMNS},
        epochs=epochs,
        steps=steps,
        collapsed=False,
        seconds=1.0,
        made={},
    )


def _kind(config: RunConfig) -> tuple[str, int]:
    return config.towers.trained if config.towers else "", config.batch_size
