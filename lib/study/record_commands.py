"""``study runs``, ``compare``, ``export`` and ``merge``: the run records from the command line."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lib.study.catalogue import StudyError
from lib.study.shell import FAILURE, Json, explained, writable

if TYPE_CHECKING:
    import pandas as pd

    from lib.runs import RunRecord, Store
    from lib.study.exchange import Merged
    from lib.study.ledger import SettingComparison

TERMS_HELP = (
    "Which runs: NAME=VALUE, as in corpus=flickr8k seed='0|1' gamma=10; or a method by itself."
)
NAMES_SHOWN = 10
UNLIMITED = 10_000
Terms = Annotated[list[str] | None, typer.Argument(metavar="TERM", help=TERMS_HELP)]


def runs(
    terms: Terms = None,
    by_setting: Annotated[
        bool, typer.Option("--settings", help="One row per configuration: means over its seeds.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows to show, the newest; 0: all.")] = 40,
    as_json: Json = False,
) -> None:
    """List finished runs: what was run, what it reached, when, how long, by which code."""
    with explained(), _answers():
        from lib.study.ledger import constants, runs_table, settings, settings_table

        store, everything = _records()
        chosen = _select(everything, terms)
        if by_setting:
            table = settings_table(settings(chosen))
            shown = table.head(limit or len(table))
        else:
            chosen.sort(key=lambda record: record.made.get("date", ""))
            table = runs_table(chosen)
            shown = table.tail(limit or len(table))
        if as_json:
            # pandas writes a missing value as null, json as NaN, which is not JSON.
            rows = json.loads(shown.to_json(orient="records", force_ascii=False))
            typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        elif by_setting:
            _print(_settings_rows(shown))
        else:
            newest = chosen[-len(shown) :]
            _print([_run_row(record, constants(record.config)) for record in newest])
        if len(shown) < len(table):
            typer.echo(f"{len(shown)} of {len(table):,}; --limit 0 shows all", err=True)
        if unused := store.unused(everything):
            typer.echo(
                f"{unused:,} records more are here and not used: damaged, or made by code with "
                "other numbers (another RESULTS_VERSION); their runs are trained again when needed",
                err=True,
            )


def compare(
    a: Annotated[str, typer.Argument(help="A method with ',NAME=VALUE' terms, or a run's id.")],
    b: Annotated[str, typer.Argument(help="The baseline, likewise.")],
    where: Annotated[
        list[str] | None, typer.Option("--where", "-w", metavar="TERM", help=TERMS_HELP)
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Of several settings, take the best on validation.")
    ] = False,
    margin: Annotated[
        float, typer.Option(min=1e-9, help="Points of recall within which a difference is none.")
    ] = 0.3,
    every_metric: Annotated[
        bool, typer.Option("--all", help="Every test metric, not R@1 alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give the paired verdict on A against B, over the seeds that both have run."""
    with explained(), _answers():
        from lib.study.ledger import compare as compare_settings
        from lib.study.ledger import find_setting

        _, everything = _records()
        among = _select(everything, where)
        ours, theirs = (find_setting(among, text, best=best) for text in (a, b))
        compared = compare_settings(ours, theirs, margin, every_metric=every_metric)
        if not as_json:
            _print_comparison(ours.name, theirs.name, compared, margin)
            return
        content = {
            "a": ours.name,
            "b": theirs.name,
            "seeds": compared.seeds,
            "unpaired_seeds": compared.unpaired,
            "differs": compared.differs,
            "trained_on": compared.trained_on,
            "margin": margin,
            "comparisons": compared.table.to_dict("records"),
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    terms: Terms = None,
    form: Annotated[
        Literal["parquet", "csv"],
        typer.Option("--format", help="Parquet can be merged elsewhere; CSV can not."),
    ] = "parquet",
) -> None:
    """Write run records to runs, epochs and steps files, and print their paths."""
    with explained(), _answers():
        from lib.study.exchange import write_records

        writable(folder, "the folder of the export")
        _, everything = _records()
        for path in write_records(_select(everything, terms), folder, form):
            typer.echo(path)


def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="What `study export` wrote elsewhere (the folder or its runs.parquet), or another "
            "machine's $STUDY_HOME."
        ),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Where two records differ, take what comes in.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    as_json: Json = False,
) -> None:
    """Add run records of other machines. Records that differ are kept unless --replace is given."""
    with explained(), _answers():
        from lib.runs import Store
        from lib.study.exchange import merge as merge_into

        merged = merge_into(sources, Store(), replace=replace, dry_run=dry_run)
        if as_json:
            typer.echo(json.dumps({**vars(merged), "dry_run": dry_run}, indent=2))
        else:
            _print_merged(merged, dry_run)
        if merged.kept or merged.unusable:
            raise typer.Exit(FAILURE)


@contextmanager
def _answers() -> Iterator[None]:
    """Turn the errors of requests on records into a usage error, without importing pandas early."""
    try:
        yield
    except ValueError as error:
        from lib.statistics import StatisticsError
        from lib.study.exchange import ExchangeError
        from lib.study.ledger import LedgerError

        if isinstance(error, (ExchangeError, LedgerError, StatisticsError)):
            raise StudyError(str(error)) from error
        raise


def _records() -> "tuple[Store, list[RunRecord]]":
    from lib.runs import Store

    store = Store()
    return store, store.records()


def _select(records: "list[RunRecord]", terms: Sequence[str] | None) -> "list[RunRecord]":
    from lib.study.ledger import LedgerError, select

    if not records:
        raise LedgerError("there are no finished runs yet: `study run` makes some")
    chosen = select(records, terms or ())
    if not chosen:
        raise LedgerError(
            f"none of the {len(records):,} finished runs fits {' '.join(terms or ())}; "
            "`study runs` lists them"
        )
    return chosen


def _run_row(record: "RunRecord", constants: str) -> dict[str, str]:
    from lib.study.ledger import SHORT_ID

    config, test = record.config, record.test
    return {
        "run": config.run_id[:SHORT_ID],
        "method": config.method,
        "corpus": config.corpus,
        "n": str(config.train_images),
        "seed": str(config.seed),
        "i2t R@1": f"{test['i2t_r1']:.1f}",
        "t2i R@1": f"{test['t2i_r1']:.1f}",
        "rSum": f"{test['rsum']:.1f}",
        "when": record.made.get("date", "?")[:16].replace("T", " "),
        "s": f"{record.seconds:.1f}",
        "code": record.made.get("code", "?"),
        "constants": constants,
    }


def _settings_rows(table: "pd.DataFrame") -> list[dict[str, str]]:
    from lib.study.ledger import SHORT_ID

    return [
        {
            "run": row["run_id"][:SHORT_ID],
            "method": row["method"],
            "corpus": row["corpus"],
            "n": str(row["train_images"]),
            "seeds": str(row["seeds"]),
            "validation rSum": f"{row['validation_rsum']:.1f}",
            "i2t R@1": f"{row['i2t_r1']:.1f}",
            "t2i R@1": f"{row['t2i_r1']:.1f}",
            "rSum": f"{row['rsum']:.1f}",
            "constants": row["constants"],
        }
        for row in table.to_dict("records")
    ]


def _print(rows: Sequence[dict[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in rows[0]:
        table.add_column(heading, no_wrap=heading != "constants")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    console = Console()
    if not console.is_terminal:
        # A pipe has no width; each row stays on one line.
        console = Console(width=UNLIMITED)
    console.print(table)


def _print_comparison(a: str, b: str, compared: "SettingComparison", margin: float) -> None:
    typer.echo(f"A  {a}\nB  {b}\non {compared.trained_on}")
    left = f"; seeds {list(compared.unpaired)} have no partner" if compared.unpaired else ""
    typer.echo(
        f"{len(compared.seeds)} paired seeds{left}; differences within ±{margin:g} are none\n"
    )
    _print(
        [
            {
                "A − B": row["metric"],
                "mean": f"{row['estimate']:+.2f}",
                "95 % interval": f"{row['low']:+.2f} to {row['high']:+.2f}",
                "p, adjusted": f"{row['p_adjusted']:.3g}",
                "verdict": row["verdict"],
            }
            for row in compared.table.to_dict("records")
        ]
    )
    differs = ", ".join(f"{name}: {x} / {y}" for name, (x, y) in compared.differs.items())
    typer.echo(f"\nThey differ in {differs}")


def _print_merged(merged: "Merged", dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    typer.echo(
        f"{len(merged.added):,} {would}added, {len(merged.known):,} known already, "
        f"{len(merged.replaced):,} {would}replaced"
    )
    problems = (
        ("differ from what is here, which is kept (--replace takes what comes in)", merged.kept),
        ("can't be used", merged.unusable),
    )
    for what, named in problems:
        if named:
            typer.echo(f"{len(named):,} {what}:", err=True)
            for name, why in list(named.items())[:NAMES_SHOWN]:
                typer.echo(f"  {name}: {why}", err=True)
            if len(named) > NAMES_SHOWN:
                typer.echo(f"  and {len(named) - NAMES_SHOWN} more; --json names all", err=True)
