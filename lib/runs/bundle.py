"""Many records in three compact tables: what is published, exported and merged."""

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
    """Write runs compactly: ``runs.parquet``, ``epochs.parquet`` and ``steps.parquet``, numbers
    and configurations alone, the same bytes for the same records whatever their order."""
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
    """The runs that :func:`export_records` wrote: the name of each to its record.

    A record is made when it is first asked for, since a notebook asks for few of thousands. Of
    another results' version, the name is not the record's ``run_id``.

    Args:
        runs: Name to the run's row of ``runs.parquet``.
        epochs: Name to per-epoch series, as :class:`RunRecord` has them.
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
        """Return the names of runs with numbers that are none, without making their records."""
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
    """Open what :func:`export_records` wrote to ``folder``.

    Raises:
        FileNotFoundError: One of its three files is missing.
        ValueError: One of them is damaged, or they are not of one export; it is named.
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
    for name, series in (("epochs", epochs), ("steps", steps)):
        if lacking := [run_id for run_id in runs["run_id"] if run_id not in series]:
            raise DamagedTableError(
                f"{folder / name}.parquet is damaged (it lacks run {lacking[0]})"
            )
    return Bundle(runs.set_index("run_id").to_dict("index"), epochs, steps)


def _series(
    path: Path, purpose: str, columns: tuple[str, ...], kind: type[Any]
) -> dict[str, NDArray[Any]]:
    """Return each run's rows as a part of one array: a copy a run would take seconds."""
    table = read_table(path, purpose)
    _check_columns(path, table, ("run_id", *columns))
    numbers = table[list(columns)].to_numpy(kind)
    codes, names = pd.factorize(table["run_id"])
    # Codes count the runs in the order in which they appear.
    if (torn := np.flatnonzero(np.diff(codes) < 0)).size:
        name = names[codes[torn[0] + 1]]
        raise DamagedTableError(f"{path} is damaged (the rows of run {name} lie in pieces)")
    ends = np.cumsum(np.bincount(codes, minlength=len(names))).tolist()
    starts = [0, *ends]
    return {
        name: numbers[starts[i] : end]
        for i, (name, end) in enumerate(zip(names, ends, strict=True))
    }


_BUNDLE = ("epochs", "steps", "runs")
"""The files of an export as they are written: what names the runs comes last, for the others must
fit it."""


def _bundle_purpose(name: str, ids: Iterable[str]) -> str:
    """Say what a file of an export is: its runs' names keep files of two exports apart."""
    return f"{name} of {hashlib.sha256(' '.join(ids).encode()).hexdigest()}"


def _check_columns(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    if lacking := [name for name in columns if name not in table]:
        raise DamagedTableError(f"{path} is damaged (it has no column {', '.join(lacking)})")
