"""Run records that leave this machine, and those of other machines that come in.

Nothing that comes in is believed: a record must name the run that its configuration hashes to, be
whole and finite, and not contradict what is here already.
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


class ExchangeError(ValueError):
    """A folder or file holds no run records; the text says what would."""


@dataclass
class Merged:
    """What a merge did, run ids and the reasons.

    Attributes:
        added: Runs, and tables, that were not here.
        known: Those that were, with the same content.
        conflicts: Id to how the content differs; kept as they are here unless replacing was asked.
        replaced: Those conflicts that were replaced.
        unusable: Name to why a record cannot be used.
    """

    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    conflicts: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, str]:
        """The conflicts in which what was here stayed."""
        return {name: why for name, why in self.conflicts.items() if name not in self.replaced}


def write_records(records: Sequence[RunRecord], folder: Path, form: Format) -> list[Path]:
    """Write runs, their epochs and their steps to ``folder``; return the files.

    Parquet is what :func:`merge` and the published edition read; CSV is for other programs, with a
    column for each field of the configuration.

    Raises:
        ValueError: There is no record.
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
    """Take in the runs and tables that other machines made.

    Args:
        sources: What ``study export`` wrote (the folder or its ``runs.parquet``), or another
            machine's ``$STUDY_HOME`` or its ``runs`` folder.
        store: Where they go.
        replace: Let what comes in replace what is here where the two differ.
        dry_run: Only tell.

    Raises:
        ExchangeError: A source holds no run records. Nothing is taken in then.
    """
    merged = Merged()
    read = [(path, *_open(path)) for path in sources]
    for _, records, tables in read:
        for name, record in records:
            _take(name, record, store, merged, replace=replace, dry_run=dry_run)
        for table in tables:
            _take_table(table, merged, replace=replace, dry_run=dry_run)
    return merged


def _open(source: Path) -> tuple[list[tuple[str, RunRecord | str]], list[Path]]:
    folder = source.parent if source.name == "runs.parquet" else source
    if (folder / "runs.parquet").is_file():
        try:
            return list(read_bundle(folder).items()), sorted((folder / "tables").glob("*.parquet"))
        except (OSError, ValueError, KeyError) as error:
            raise ExchangeError(f"{folder} holds damaged records: {error}") from error
    for runs in (source / "runs", source):
        if found := sorted(runs.glob("??/*.json")):
            tables = sorted((runs.parent / "tables").glob("*.parquet"))
            return [(path.stem, _read(path)) for path in found], tables
    raise ExchangeError(
        f"{source} holds no run records: name a folder that `study export` wrote, its "
        "runs.parquet, or another machine's $STUDY_HOME"
    )


def _read(path: Path) -> RunRecord | str:
    try:
        return read_record(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"damaged ({error})"


def _take(
    name: str,
    record: RunRecord | str,
    store: Store,
    merged: Merged,
    *,
    replace: bool,
    dry_run: bool,
) -> None:
    if isinstance(record, str):
        merged.unusable[name] = record
        return
    if record.config.run_id != name:
        merged.unusable[name] = (
            "made by code of another results version, or its configuration was changed; the "
            f"present version is {RESULTS_VERSION}"
        )
        return
    if wrong := record.fault():
        merged.unusable[name] = wrong
        return
    here = store.get(record.config)
    if here is None:
        merged.added.append(name)
    elif not (differs := here.difference(record)):
        merged.known.append(name)
        return
    else:
        merged.conflicts[name] = differs
        if not replace:
            return
        if store.is_published(record.config):
            merged.conflicts[name] += "; the published edition's record cannot be replaced"
            return
        merged.replaced.append(name)
    if not dry_run:
        store.put(record)


def _take_table(source: Path, merged: Merged, *, replace: bool, dry_run: bool) -> None:
    target = home() / "tables" / source.name
    try:
        read_table(source, table_purpose(source))
    except (OSError, DamagedTableError) as error:
        merged.unusable[source.name] = str(error)
        return
    data = source.read_bytes()
    if target.exists():
        if target.read_bytes() == data:
            merged.known.append(source.name)
            return
        merged.conflicts[source.name] = "the table has other content"
        if not replace:
            return
        merged.replaced.append(source.name)
    else:
        merged.added.append(source.name)
    if not dry_run:
        write_atomic(target, data)
