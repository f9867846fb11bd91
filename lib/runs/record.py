"""The record of a finished run, and its file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.runs.config import RunConfig
from lib.utils.files import write_atomic

EPOCH_COLUMNS = ("loss", *(f"{d}_r{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)), "rsum")
"""Per-epoch series: mean training loss, validation recalls in percent, and their sum. A run of no
epochs has one row, of the heads as they are and the loss 0."""

STEP_COLUMNS = ("loss", "weight_i2t", "weight_t2i", "temperature", "signal_i2t", "signal_t2i")
"""Per-step series. The signals are the mean row and column variance of the batch's similarities,
whatever the method."""

TEST_COLUMNS = (*EPOCH_COLUMNS[1:], "i2t_median_rank", "t2i_median_rank")
"""Test metrics, taken once, at the epoch that validation chose."""


@dataclass(frozen=True)
class RunRecord:
    """The record of a finished run.

    Attributes:
        config: The run's configuration.
        corpus_fingerprint: SHA-256 of the corpus content that the run was trained on.
        best_epoch: The epoch (from 1) with the greatest validation rSum, the first of equals.
        test: :data:`TEST_COLUMNS` to values, in percent and ranks.
        epochs: (epochs or 1, len(EPOCH_COLUMNS)) float64.
        steps: (steps, len(STEP_COLUMNS)) float32.
        collapsed: Whether the chosen model's test embeddings have all but one direction in common.
        seconds: Wall time of the run's share of its stack; never part of a comparison.
        made: Versions of libraries and code, device and date; for information only.
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
        """The validation rSum at the chosen epoch, the run's greatest, in percent points."""
        return float(self.epochs[self.best_epoch - 1, -1])

    @property
    def finite(self) -> bool:
        """Whether every number is finite; the store keeps no other record."""
        numbers = (self.epochs, self.steps, np.array(list(self.test.values()), dtype=np.float64))
        return all(bool(np.isfinite(array).all()) for array in numbers)

    def epoch_table(self) -> pd.DataFrame:
        """Return the per-epoch series, one row per epoch, counted from 1."""
        table = pd.DataFrame(self.epochs, columns=list(EPOCH_COLUMNS))
        table.insert(0, "epoch", np.arange(1, len(table) + 1))
        return table

    def step_table(self) -> pd.DataFrame:
        """Return the per-step series, one row per step, counted from 1."""
        table = pd.DataFrame(self.steps, columns=list(STEP_COLUMNS))
        table.insert(0, "step", np.arange(1, len(table) + 1))
        return table

    def difference(self, other: "RunRecord") -> str:
        """Return how another record of the same configuration differs, "" if it does not.

        ``seconds`` and ``made`` do not count.
        """
        if self.corpus_fingerprint != other.corpus_fingerprint:
            return "trained on other corpus content"
        if self.epochs.shape != other.epochs.shape or self.steps.shape != other.steps.shape:
            return "of another length"
        if (
            np.array_equal(self.epochs, other.epochs)
            and np.array_equal(self.steps, other.steps)
            and dict(self.test) == dict(other.test)
            and (self.best_epoch, self.collapsed) == (other.best_epoch, other.collapsed)
        ):
            return ""
        gap = max(abs(self.test[name] - other.test[name]) for name in TEST_COLUMNS)
        where = f"{self.made.get('device', '?')} here, {other.made.get('device', '?')} there"
        return f"test metrics differ by up to {gap:.3g} ({where})"

    def fault(self) -> str:
        """Return what is wrong with the record, "" if nothing is."""
        if self.epochs.shape != (max(1, self.config.epochs), len(EPOCH_COLUMNS)):
            return f"its epochs have the shape {self.epochs.shape}"
        if self.steps.ndim != 2 or self.steps.shape[1] != len(STEP_COLUMNS):
            return f"its steps have the shape {self.steps.shape}"
        if set(self.test) != set(TEST_COLUMNS):
            return "its test metrics are not those of this version"
        if not self.finite:
            return "it holds numbers that are not finite"
        if self.best_epoch != 1 + int(np.argmax(self.epochs[:, -1])):
            return "its best epoch is not the one that validation chose"
        return ""


def write_record(record: RunRecord, path: Path) -> None:
    """Write a record with its checksum, whole or not at all."""
    content = {
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
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    digest = hashlib.sha256(body.encode()).hexdigest()
    write_atomic(path, f'{{"sha256":"{digest}","run":{body}}}\n')


def read_record(path: Path) -> RunRecord:
    """Read a file that :func:`write_record` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError, KeyError, TypeError: The file is damaged.
    """
    text = path.read_text(encoding="utf-8")
    envelope = json.loads(text)
    body = text[text.index('"run":') + 6 : text.rindex("}")]
    if hashlib.sha256(body.encode()).hexdigest() != envelope["sha256"]:
        raise ValueError("its checksum does not fit")
    content = envelope["run"]
    return RunRecord(
        config=RunConfig.model_validate(content["config"]),
        corpus_fingerprint=content["corpus_fingerprint"],
        best_epoch=content["best_epoch"],
        test=content["test"],
        epochs=np.array(content["epochs"], dtype=np.float64),
        steps=np.array(content["steps"] or np.empty((0, len(STEP_COLUMNS))), dtype=np.float32),
        collapsed=content["collapsed"],
        seconds=content["seconds"],
        made=content["made"],
    )
