"""What a finished run leaves, and its file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.runs.config import RunConfig

EPOCH_COLUMNS = (
    "loss",
    *(f"{d}_r{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)),
    "rsum",
)
"""Per-epoch series: mean training loss, validation recalls in percent, and their sum."""

STEP_COLUMNS = ("loss", "weight_i2t", "weight_t2i", "temperature", "signal_i2t", "signal_t2i")
"""Per-step series. The signals are the mean row and column variance of the batch's similarities,
recorded for every method, whatever drives it."""

TEST_COLUMNS = (*EPOCH_COLUMNS[1:], "i2t_median_rank", "t2i_median_rank")
"""Test metrics, read once, at the epoch that validation chose."""


@dataclass(frozen=True)
class RunRecord:
    """What a finished run leaves.

    Attributes:
        config: What determined it.
        corpus_fingerprint: SHA-256 of the corpus content it was trained on.
        best_epoch: The epoch (from 1) with the greatest validation rSum, the first of equals.
        test: :data:`TEST_COLUMNS` to values, in percent and ranks.
        epochs: (epochs, len(EPOCH_COLUMNS)) float64.
        steps: (steps, len(STEP_COLUMNS)) float32.
        collapsed: Whether the chosen model's test embeddings have all but one direction in common.
        seconds: Wall time of the run's share of its stack; never part of a comparison.
        made: Versions, of the code too, device and date, for the reader of the record alone.
    """

    config: RunConfig
    corpus_fingerprint: str
    best_epoch: int
    test: Mapping[str, float]
    epochs: NDArray[np.float64]
    steps: NDArray[np.float32]
    collapsed: bool
    seconds: float
    made: Mapping[str, str]

    @property
    def validation_rsum(self) -> float:
        """The validation rSum at the chosen epoch, in percent points: the run's greatest."""
        return float(self.epochs[self.best_epoch - 1, -1])

    @property
    def finite(self) -> bool:
        """Whether every number of it is finite; only then may it be kept."""
        numbers = (self.epochs, self.steps, np.array(list(self.test.values()), dtype=np.float64))
        return all(bool(np.isfinite(array).all()) for array in numbers)

    def epoch_table(self) -> pd.DataFrame:
        """Return the per-epoch series, one row an epoch, counted from 1."""
        table = pd.DataFrame(self.epochs, columns=list(EPOCH_COLUMNS))
        table.insert(0, "epoch", np.arange(1, len(table) + 1))
        return table

    def step_table(self) -> pd.DataFrame:
        """Return the per-step series, one row a step, counted from 1."""
        table = pd.DataFrame(self.steps, columns=list(STEP_COLUMNS))
        table.insert(0, "step", np.arange(1, len(table) + 1))
        return table


def read_record(path: Path) -> RunRecord:
    """Read a file that :meth:`Store.put` wrote.

    Raises:
        FileNotFoundError: There is none.
        ValueError, KeyError, TypeError: It is damaged.
    """
    text = path.read_text(encoding="utf-8")
    envelope = json.loads(text)
    body = text[text.index('"run":') + 6 : text.rindex("}")]
    if hashlib.sha256(body.encode()).hexdigest() != envelope["sha256"]:
        raise ValueError("its checksum does not fit")
    return _from_json(envelope["run"])


def _to_json(record: RunRecord) -> dict[str, Any]:
    return {
        "config": record.config.model_dump(mode="json"),
        "corpus_fingerprint": record.corpus_fingerprint,
        "best_epoch": record.best_epoch,
        "test": dict(record.test),
        "epochs": record.epochs.tolist(),
        "steps": record.steps.tolist(),
        "collapsed": record.collapsed,
        "seconds": record.seconds,
        "made": dict(record.made),
    }


def _from_json(data: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        config=RunConfig.model_validate(data["config"]),
        corpus_fingerprint=data["corpus_fingerprint"],
        best_epoch=data["best_epoch"],
        test=data["test"],
        epochs=np.array(data["epochs"], dtype=np.float64),
        steps=np.array(data["steps"], dtype=np.float32),
        collapsed=data["collapsed"],
        seconds=data["seconds"],
        made=data["made"],
    )


def difference(one: RunRecord, other: RunRecord) -> str:
    """Say how two records of one configuration differ, "" where they tell the same.

    The time that a run took and the machine it ran on are not what a record tells.
    """
    if one.corpus_fingerprint != other.corpus_fingerprint:
        return "trained on other corpus content"
    if one.epochs.shape != other.epochs.shape or one.steps.shape != other.steps.shape:
        return "of another length"
    same = (
        np.array_equal(one.epochs, other.epochs)
        and np.array_equal(one.steps, other.steps)
        and dict(one.test) == dict(other.test)
        and (one.best_epoch, one.collapsed) == (other.best_epoch, other.collapsed)
    )
    if same:
        return ""
    gap = max(abs(one.test[name] - other.test[name]) for name in TEST_COLUMNS)
    where = f"{one.made.get('device', '?')} here, {other.made.get('device', '?')} there"
    return f"test metrics differ by up to {gap:.3g} ({where})"


def fault(record: RunRecord) -> str:
    """Say what is wrong with a record, "" if nothing is."""
    config = record.config
    if record.epochs.shape != (config.epochs, len(EPOCH_COLUMNS)):
        return f"its epochs have the shape {record.epochs.shape}"
    if record.steps.ndim != 2 or record.steps.shape[1] != len(STEP_COLUMNS):
        return f"its steps have the shape {record.steps.shape}"
    if set(record.test) != set(TEST_COLUMNS):
        return "its test metrics are not those of this version"
    if not record.finite:
        return "it holds numbers that are not finite"
    if record.best_epoch != 1 + int(np.argmax(record.epochs[:, -1])):
        return "its best epoch is not the one that validation chose"
    return ""
