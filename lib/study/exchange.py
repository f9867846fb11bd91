"""Export of run records, and the merge of records from other machines.

A merged record must have the run id of its configuration, be whole and finite, and not contradict
a record of this machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lib.runs import RESULTS_VERSION, RunRecord, Store, export_records, read_bundle, read_record
from lib.runs.tables import DamagedTableError, read_table, table_purpose
from lib.study.ledger import runs_table
from lib.utils.files import home, write_atomic

Format = Literal["parquet", "csv"]
Incoming = RunRecord | str
"""A record, or why it can't be read."""


class ExchangeError(ValueError):
    """A folder or file holds no run records; the text says what to name instead."""


@dataclass
class Merged:
    """What a merge did, by run id or table file.

    Attributes:
        added: Runs and tables that this machine did not have.
        known: Those that this machine has with the same content.
        conflicts: Name to how the content differs.
        replaced: The conflicts in which the incoming content replaced this machine's.
        unusable: Name to why a record or table cannot be used.
    """

    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    conflicts: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, str]:
        """The conflicts in which this machine's content stayed."""
        return {name: why for name, why in self.conflicts.items() if name not in self.replaced}

    def admits(self, name: str, difference: str | None, *, replace: bool, fixed: str = "") -> bool:
        """Note what comes in as ``name``; return whether it is to be written.

        Args:
            name: A run id or a table's file.
            difference: How this machine's content differs: "" not at all, None if it has none.
            replace: Whether differing content is replaced.
            fixed: Why this content cannot be replaced, "" if it can.
        """
        if difference is None:
            self.added.append(name)
        elif not difference:
            self.known.append(name)
            return False
        else:
            self.conflicts[name] = difference + (fixed if replace else "")
            if fixed or not replace:
                return False
            self.replaced.append(name)
        return True


def write_records(records: Sequence[RunRecord], folder: Path, form: Format) -> list[Path]:
    """Write runs, their epochs and their steps to ``folder``; return the files.

    :func:`merge` and the published edition read Parquet. CSV is for other programs and has one
    column per field of the configuration.

    Raises:
        ValueError: ``records`` is empty.
    """
    if form == "parquet":
        export_records(records, folder)
        return [folder / f"{name}.parquet" for name in ("runs", "epochs", "steps")]
    if not records:
        raise ValueError("there is no record to export")
    ordered = sorted(records, key=lambda record: record.config.run_id)
    files = [folder / "runs.csv"]
    write_atomic(files[0], runs_table(ordered).to_csv(index=False))
    for name in ("epoch", "step"):
        parts: list[str] = []
        for record in ordered:
            table = record.epoch_table() if name == "epoch" else record.step_table()
            table.insert(0, "run_id", record.config.run_id)
            parts.append(table.to_csv(index=False, header=not parts))
        files.append(folder / f"{name}s.csv")
        write_atomic(files[-1], "".join(parts))
    return files


def merge(
    sources: Iterable[Path], store: Store, *, replace: bool = False, dry_run: bool = False
) -> Merged:
    """Add the runs and tables of other machines to ``store``.

    Args:
        sources: What ``study export`` wrote (the folder or its ``runs.parquet``), or another
            machine's ``$STUDY_HOME`` or its ``runs`` folder.
        store: This machine's store.
        replace: Replace content of this machine that differs.
        dry_run: Write nothing; only return what would be done.

    Raises:
        ExchangeError: A source holds no run records. Nothing is added then.
    """
    merged = Merged()
    for records, tables in [_open(path) for path in sources]:
        for name, record in records:
            _take(name, record, store, merged, replace=replace, dry_run=dry_run)
        for table in tables:
            _take_table(table, merged, replace=replace, dry_run=dry_run)
    return merged


def _open(source: Path) -> tuple[list[tuple[str, Incoming]], list[Path]]:
    folder = source.parent if source.name == "runs.parquet" else source
    if (folder / "runs.parquet").is_file():
        try:
            return list(read_bundle(folder).items()), sorted((folder / "tables").glob("*.parquet"))
        except (OSError, ValueError, KeyError) as error:
            raise ExchangeError(f"{folder} holds damaged records: {error}") from error
    for runs in (source / "runs", source):
        if files := sorted(runs.glob("??/*.json")):
            tables = sorted((runs.parent / "tables").glob("*.parquet"))
            return [(path.stem, _read(path)) for path in files], tables
    raise ExchangeError(
        f"{source} holds no run records: name a folder that `study export` wrote, its "
        "runs.parquet, or another machine's $STUDY_HOME"
    )


def _read(path: Path) -> Incoming:
    try:
        return read_record(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"damaged ({error})"


def _take(
    name: str, record: Incoming, store: Store, merged: Merged, *, replace: bool, dry_run: bool
) -> None:
    if isinstance(record, str):
        merged.unusable[name] = record
    elif record.config.run_id != name:
        merged.unusable[name] = (
            "made by code of another results version, or its configuration was changed; the "
            f"present version is {RESULTS_VERSION}"
        )
    elif fault := record.fault():
        merged.unusable[name] = fault
    else:
        here = store.get(record.config)
        difference = None if here is None else here.difference(record)
        fixed = "; the published edition's record cannot be replaced"
        fixed = fixed if store.is_published(record.config) else ""
        if merged.admits(name, difference, replace=replace, fixed=fixed) and not dry_run:
            store.put(record)


def _take_table(source: Path, merged: Merged, *, replace: bool, dry_run: bool) -> None:
    target = home() / "tables" / source.name
    try:
        read_table(source, table_purpose(source))
    except (OSError, DamagedTableError) as error:
        merged.unusable[source.name] = str(error)
        return
    data, difference = source.read_bytes(), None
    if target.exists():
        difference = "" if target.read_bytes() == data else "the table has other content"
    if merged.admits(source.name, difference, replace=replace) and not dry_run:
        write_atomic(target, data)
