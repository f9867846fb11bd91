"""Many records in three compact tables, for publication, export and merge."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.runs.config import RunConfig
from lib.runs.record import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunRecord
from lib.runs.tables import DamagedTableError, read_table, table_purpose, write_table


def export_records(records: Iterable[RunRecord], folder: Path) -> None:
    """Write records as ``runs.parquet``, ``epochs.parquet`` and ``steps.parquet`` in ``folder``.

    The same records give the same bytes in any order.

    Raises:
        ValueError: ``records`` is empty.
    """
    ordered = sorted(records, key=lambda record: record.config.run_id)
    if not ordered:
        raise ValueError("there is no record to export")
    ids = [record.config.run_id for record in ordered]
    runs = pd.DataFrame(
        {
            "run_id": ids,
            "config": [record.config.model_dump_json() for record in ordered],
            "corpus_fingerprint": [record.corpus_fingerprint for record in ordered],
            "best_epoch": [record.best_epoch for record in ordered],
            "collapsed": [record.collapsed for record in ordered],
            "seconds": [record.seconds for record in ordered],
            "made": [json.dumps(dict(record.made), sort_keys=True) for record in ordered],
            **{name: [record.test[name] for record in ordered] for name in TEST_COLUMNS},
        }
    )
    series: dict[str, tuple[tuple[str, ...], list[NDArray[Any]]]] = {
        "epochs": (EPOCH_COLUMNS, [record.epochs for record in ordered]),
        "steps": (STEP_COLUMNS, [record.steps for record in ordered]),
    }
    tables = {"runs": runs}
    for name, (columns, arrays) in series.items():
        table = pd.DataFrame(np.concatenate(arrays), columns=list(columns))
        table.insert(0, "run_id", np.repeat(ids, [len(array) for array in arrays]))
        tables[name] = table
    for name in _BUNDLE:
        write_table(folder / f"{name}.parquet", tables[name], _bundle_purpose(name, ids))


class Bundle(Mapping[str, RunRecord]):
    """The records that :func:`export_records` wrote, by name.

    A record is made on first access, since a notebook needs few of thousands. If the results
    version is another, the name is not the record's ``run_id``.

    Args:
        runs: Name to the run's row of ``runs.parquet``.
        epochs: Name to per-epoch series, as in :class:`RunRecord`.
        steps: Name to per-step series.
    """

    def __init__(
        self,
        runs: Mapping[str, Mapping[Any, Any]] = MappingProxyType({}),
        epochs: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
        steps: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        self._runs, self._epochs, self._steps = runs, epochs, steps
        self._made: dict[str, RunRecord] = {}

    def __getitem__(self, name: str) -> RunRecord:
        if name not in self._made:
            row = self._runs[name]
            self._made[name] = RunRecord(
                config=RunConfig.model_validate_json(row["config"]),
                corpus_fingerprint=row["corpus_fingerprint"],
                best_epoch=int(row["best_epoch"]),
                test={column: float(row[column]) for column in TEST_COLUMNS},
                epochs=self._epochs[name],
                steps=self._steps[name],
                collapsed=bool(row["collapsed"]),
                seconds=float(row["seconds"]),
                made=json.loads(row["made"]),
            )
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, name: object) -> bool:
        return name in self._runs

    def not_finite(self) -> list[str]:
        """Return the names of runs that contain NaN or infinity, without making their records."""
        return [
            name
            for name, row in self._runs.items()
            if not (
                np.isfinite(self._epochs[name]).all()
                and np.isfinite(self._steps[name]).all()
                and np.isfinite([row[column] for column in TEST_COLUMNS]).all()
            )
        ]


def read_bundle(folder: Path) -> Bundle:
    """Open the files that :func:`export_records` wrote to ``folder``.

    Raises:
        FileNotFoundError: One of the three files is missing.
        ValueError: One of them is damaged, or they are of different exports.
    """
    first = folder / "runs.parquet"
    purposes = {name: table_purpose(folder / f"{name}.parquet") for name in _BUNDLE}
    runs = read_table(first, purposes["runs"])
    _check_columns(first, runs, ("run_id", "config", *TEST_COLUMNS))
    if twice := runs["run_id"][runs["run_id"].duplicated()].tolist():
        raise DamagedTableError(f"{first} is damaged (it has run {twice[0]} twice)")
    if purposes["runs"]:
        for name in _BUNDLE:
            if purposes[name] != _bundle_purpose(name, list(runs["run_id"])):
                raise DamagedTableError(f"{folder / f'{name}.parquet'} is of another export")
    epochs = _series(folder / "epochs.parquet", purposes["epochs"], EPOCH_COLUMNS, np.float64)
    steps = _series(folder / "steps.parquet", purposes["steps"], STEP_COLUMNS, np.float32)
    for run_id, config in zip(runs["run_id"], runs["config"], strict=True):
        if run_id not in steps and json.loads(config).get("epochs") == 0:
            steps[run_id] = np.empty((0, len(STEP_COLUMNS)), np.float32)
    for name, series in (("epochs", epochs), ("steps", steps)):
        if lacking := [run_id for run_id in runs["run_id"] if run_id not in series]:
            raise DamagedTableError(
                f"{folder / name}.parquet is damaged (it lacks run {lacking[0]})"
            )
    return Bundle(runs.set_index("run_id").to_dict("index"), epochs, steps)


def _series(
    path: Path, purpose: str, columns: tuple[str, ...], kind: type[Any]
) -> dict[str, NDArray[Any]]:
    """Return each run's rows as a view of one array: copies of all runs would take seconds."""
    table = read_table(path, purpose)
    _check_columns(path, table, ("run_id", *columns))
    numbers = table[list(columns)].to_numpy(kind)
    codes, names = pd.factorize(table["run_id"])
    # Codes number the runs in order of appearance.
    if (torn := np.flatnonzero(np.diff(codes) < 0)).size:
        name = names[codes[torn[0] + 1]]
        raise DamagedTableError(f"{path} is damaged (the rows of run {name} lie in pieces)")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    # The part after the last end is empty.
    return dict(zip(names, np.split(numbers, ends), strict=False))


_BUNDLE = ("epochs", "steps", "runs")
"""The files of an export in the order of writing. ``runs``, which the others must fit, is last."""


def _bundle_purpose(name: str, ids: Iterable[str]) -> str:
    """Return the purpose of a file of an export; the ids differ between two exports."""
    return f"{name} of {hashlib.sha256(' '.join(ids).encode()).hexdigest()}"


def _check_columns(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    if lacking := [name for name in columns if name not in table]:
        raise DamagedTableError(f"{path} is damaged (it has no column {', '.join(lacking)})")
