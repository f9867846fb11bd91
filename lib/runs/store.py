"""The store of finished runs and computed tables.

A run's id hashes what determines its result: its configuration and :data:`RESULTS_VERSION`. The
fingerprint of the corpus content is in the record.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib.runs.bundle import Bundle, read_bundle
from lib.runs.config import RESULTS_VERSION, RunConfig
from lib.runs.leases import Leases
from lib.runs.plan import stop
from lib.runs.record import RunRecord, read_record, write_record
from lib.runs.tables import DamagedTableError, read_table, write_table
from lib.utils.files import home
from lib.utils.version import CONTENT, PLAN_VARIABLE, RECORDS_VARIABLE


class Store:
    """Finished runs and computed tables on disk.

    Look-ups read the published records first, if there are any, so that figures can be reproduced
    without training; then this machine's folder. Only the latter is written to.

    Args:
        folder: This machine's records; default ``home() / "runs"``.
        published: A folder of :func:`export_records`; by default ``$STUDY_RECORDS`` (empty: none)
            or, if that is not set, ``book/results/records`` beside the package.
    """

    def __init__(self, folder: Path | None = None, published: Path | None = None) -> None:
        self.folder = home() / "runs" if folder is None else folder
        self._published = _published_folder() if published is None else published
        self._bundle: Bundle | None = None

    @property
    def leases(self) -> Leases:
        """The leases on this store's runs and tables."""
        return Leases(self.folder / "leases")

    def get(self, config: RunConfig, fingerprint: str | None = None) -> RunRecord | None:
        """Return the finished run of a configuration, or None.

        Args:
            config: The run.
            fingerprint: Of the corpus content that the run must be of; None takes any.
        """
        run_id = config.run_id
        for look in (self._bundled, lambda name: self._read(self._path(name))):
            record = look(run_id)
            if record is not None and fingerprint in (None, record.corpus_fingerprint):
                _note_run(record)
                return record
        return None

    def outdated(self, config: RunConfig) -> bool:
        """Return whether this machine has the run at an older results version."""
        older = range(1, RESULTS_VERSION)
        return any(self._path(config.run_id_at(version)).exists() for version in older)

    def is_published(self, config: RunConfig) -> bool:
        """Return whether the run is among the published records, which look-ups read first."""
        return self._bundled(config.run_id) is not None

    def put(self, record: RunRecord) -> None:
        """Keep a finished run.

        Raises:
            ValueError: A number of the record is not finite.
        """
        if not record.finite:
            raise ValueError(
                f"run {record.config.run_id} ({record.config.method}, seed {record.config.seed}) "
                "holds numbers that are not finite, so it is not kept"
            )
        write_record(record, self._path(record.config.run_id))
        _note_run(record)

    def records(self) -> list[RunRecord]:
        """Return every finished run of the current results version, in order of run id."""
        bundled = {name: self._bundled(name) for name in self._published_runs()}
        finished = {name: record for name, record in bundled.items() if record is not None}
        for path in self.folder.glob("??/*.json"):
            record = self._read(path)
            if record is not None:
                finished.setdefault(record.config.run_id, record)
        return [finished[run_id] for run_id in sorted(finished)]

    def unused(self, records: Iterable[RunRecord]) -> int:
        """Return how many of this machine's files :meth:`records` skipped: those that are damaged
        or of another results version."""
        names = {record.config.run_id for record in records}
        return sum(path.stem not in names for path in self.folder.glob("??/*.json"))

    def table(
        self, name: str, key: Mapping[str, Any], compute: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """Return a table of numbers, computed if the store does not have it.

        Of two processes that need it at the same time, one computes it and the other waits.

        Args:
            name: A word for the file name.
            key: All that determines the table, as JSON values.
            compute: Computes the table.
        """
        canonical = json.dumps({"version": RESULTS_VERSION, **key}, sort_keys=True)
        file = f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:20]}.parquet"
        _note_use("table", file)
        paths = [self.folder.parent / "tables" / file]
        if self._published is not None:
            paths.insert(0, self._published / "tables" / file)
        table = _first_intact(paths, file)
        if table is None and (plan := os.environ.get(PLAN_VARIABLE)):
            stop(Path(plan), f"the table {name} is computed")
        while table is None:
            with self.leases.take([file]) as taken:
                # Another process may have written it before this one got the lease.
                table = _first_intact(paths[-1:], file)
                if table is None and taken:
                    write_table(paths[-1], compute(), file)
                    # Read back, so that the first and later calls return the same types.
                    return read_table(paths[-1], file)
            if table is None:
                self.leases.wait([file])
        return table

    def _path(self, run_id: str) -> Path:
        return self.folder / run_id[:2] / f"{run_id}.json"

    def _read(self, path: Path) -> RunRecord | None:
        try:
            record = read_record(path)
            if not record.finite:
                raise ValueError("it holds numbers that are not finite")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
            warnings.warn(f"run record {path} is damaged ({error}); not used", stacklevel=3)
            return None
        # A record of another results version hashes to another id.
        return record if record.config.run_id == path.stem else None

    def _bundled(self, run_id: str) -> RunRecord | None:
        record = self._published_runs().get(run_id)
        return record if record is not None and record.config.run_id == run_id else None

    def _published_runs(self) -> Bundle:
        if self._bundle is None:
            folder = self._published
            exists = folder and (folder / "runs.parquet").exists()
            self._bundle = _read_published(folder) if folder and exists else Bundle()
        return self._bundle


def _read_published(folder: Path) -> Bundle:
    try:
        bundle = read_bundle(folder)
        if bad := bundle.not_finite():
            raise DamagedTableError(f"run {bad[0]} holds numbers that are not finite")
        return bundle
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the published records cannot be read: {error}. Restore {folder}, or set "
            "STUDY_RECORDS to nothing to go on without them"
        ) from error


def _first_intact(paths: Iterable[Path], purpose: str) -> pd.DataFrame | None:
    for path in paths:
        if path.exists():
            try:
                return read_table(path, purpose)
            except (OSError, DamagedTableError) as error:
                warnings.warn(f"{error}; made again", stacklevel=3)
    return None


def _published_folder() -> Path | None:
    configured = os.environ.get("STUDY_RECORDS")
    if configured is not None:
        return Path(configured) if configured else None
    return Path(__file__).resolve().parent.parent.parent / "book" / "results" / "records"


def _note_run(record: RunRecord) -> None:
    _note_use("run", record.config.run_id)
    _note_use(CONTENT, f"{record.config.corpus} {record.corpus_fingerprint}")


def _note_use(kind: str, name: str) -> None:
    """Append the name of a used run or table, or of the content that a run was trained on, to
    ``$STUDY_RECORDS_LOG``."""
    if log := os.environ.get(RECORDS_VARIABLE):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{kind} {name}\n")
