"""The command line: ``study list``, ``run``, ``book``, ``quick``, ``full`` and ``links``.

:mod:`lib.study.record_commands` has the commands on run records.
"""

import io
import json
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from lib.chapters.shared.checking import cell_type, describe
from lib.chapters.shared.findings import Edition, write_findings
from lib.chapters.shared.registry import COMPARISONS, write_comparisons
from lib.study import completion, record_commands
from lib.study.address import AddressError, write_links
from lib.study.catalogue import (
    Catalogue,
    Notebook,
    StudyError,
    Values,
    find_root,
    load_catalogue,
    notebook_paths,
    parse_pairs,
    read_notebook,
)
from lib.study.execution import execute
from lib.study.planning import plans
from lib.study.preflight import check_needs, for_a_busy_machine
from lib.study.publish import publish_picture, publish_records
from lib.study.shell import Failure, Json, Root, explained, writable
from lib.study.staleness import NOTE, write_note
from lib.study.terminal import Board
from lib.utils.progress import LOG_VARIABLE
from lib.utils.version import EXECUTOR_VARIABLE, RECORDS_VARIABLE, code_version

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"study {code_version()}")
        raise typer.Exit


@app.callback()
def study(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run the study's notebooks and build its book."""


app.command()(record_commands.runs)
app.command()(record_commands.compare)
app.command()(record_commands.export)
app.command()(record_commands.merge)


class PairCommand(TyperCommand):
    """A command whose repeatable option ``-p NAME VALUE`` takes two words, as papermill's does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words before the ordinary parsing; leave ``-p NAME=VALUE`` alone."""
        words, joined = iter(args), []
        for word in words:
            joined.append(word)
            if word == "--":
                break
            if word in ("-p", "--parameter"):
                name = next(words, None)
                if name is not None and not re.match(r"\w+=", name):
                    value = next(words, None)
                    name = name if value is None else f"{name}={value}"
                joined.extend([] if name is None else [name])
        return super().parse_args(ctx, [*joined, *words])


def main() -> None:
    """Run the ``study`` command with the arguments of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe of a narrow encoding gets "?" for what it lacks, and no traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # A cluster that ends a job sends SIGTERM: stop as cleanly as on Ctrl-C, the kernel included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="study")


@app.command("list")
def list_notebooks(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Notebooks whose parameters to show.", autocompletion=completion.notebooks
        ),
    ] = None,
    as_json: Json = False,
    root: Root = None,
) -> None:
    """List the notebooks; of those that are named, the parameters, defaults and full profile."""
    with explained():
        found = find_root(root or Path.cwd())
        if not names and not as_json:
            notebooks = [read_notebook(path) for path in notebook_paths(found).values()]
            width = max((len(notebook.name) for notebook in notebooks), default=0)
            for notebook in notebooks:
                typer.echo(f"{notebook.name:{width}}  {notebook.title}")
            typer.echo("\n`study list NAME` shows the parameters of a notebook.")
            return
        catalogue = load_catalogue(found, names)
        chosen = catalogue.select(names or list(catalogue.notebooks))
    if as_json:
        typer.echo(json.dumps([_entry(catalogue, notebook) for notebook in chosen], indent=2))
        return
    console = Console()
    for notebook in chosen:
        console.print(Text(f"{notebook.name} — {notebook.title}", style="bold"))
        console.print(_table(notebook, catalogue.profiles))


@app.command(cls=PairCommand)
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Notebooks, as `study list` names them.", autocompletion=completion.notebooks
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="The profile to start from.", autocompletion=completion.profiles)
    ] = "quick",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            "--set",
            metavar="NAME VALUE",
            help="Set a parameter, -p NAME VALUE or --set NAME=VALUE; may be repeated.",
            autocompletion=completion.parameters,
        ),
    ] = None,
    document: Annotated[
        list[str] | None,
        typer.Option("--yaml", "-y", metavar="YAML", help="Set parameters, as a YAML mapping."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Run all chapters of the book.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the executed copies; _build/runs by default.")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where runs are trained: processes, processes:N, threads:N, or the workers of "
            "dask://HOST:PORT; by default $STUDY_EXECUTOR, else one after the other.",
            autocompletion=completion.executors,
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File to which the lines of progress are appended.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say how many runs would be trained, and how long."),
    ] = False,
    root: Root = None,
) -> None:
    """Run notebooks and write executed copies. Finished training runs are not repeated."""
    with explained():
        if names and everything:
            raise StudyError(f"--all runs every chapter: name {', '.join(names)} or give --all")
        catalogue = load_catalogue(find_root(root or Path.cwd()), None if everything else names)
        if not names and not everything:
            raise StudyError(
                f"name a notebook, or --all; there are {', '.join(catalogue.notebooks)}"
            )
        chosen = catalogue.select(catalogue.chapters if everything else names or [])
        given = parse_pairs(parameter or [], document or [])
        settings = catalogue.settings(chosen, profile, given)
        folder = output or catalogue.root / "_build" / "runs"
        environment = {} if executor is None else {EXECUTOR_VARIABLE: _checked(executor)}
        for notebook in chosen:
            check_needs(notebook.name, settings[notebook.name])
        if dry_run:
            for line in plans(chosen, settings):
                typer.echo(line)
            return
        for path in _run(catalogue, chosen, settings, folder, environment, log):
            typer.echo(path)


@app.command()
def book(
    edition: Annotated[
        Literal["quick", "published"], typer.Option(help="Which edition.")
    ] = "published",
    root: Root = None,
) -> None:
    """Build the book from notebooks that were executed before, and print its address."""
    with explained():
        _build(find_root(root or Path.cwd()), edition)


@app.command()
def quick(root: Root = None) -> None:
    """Run everything at the quick profile, build the quick edition and print its address."""
    with explained():
        folder = find_root(root or Path.cwd())
        results = folder / "_build" / "quick" / "results"
        executed = _make(folder, "quick", results, "quick")
        write_note(executed, results / NOTE, folder, "quick")
        _build(folder, "quick")


@app.command()
def full(root: Root = None) -> None:
    """Run everything at the full profile, build the published edition and print its address."""
    with explained():
        folder = find_root(root or Path.cwd())
        results = folder / "book" / "results"
        with tempfile.TemporaryDirectory(prefix="study-") as scratch:
            log = Path(scratch) / "records.log"
            executed = _make(folder, "full", results, "published", {RECORDS_VARIABLE: str(log)})
            publish_records(log, results / "records")
        write_note(executed, results / NOTE, folder, "full")
        publish_picture(results / "main-comparison.ipynb", results / "main-comparison.svg")
        _build(folder, "published")


@app.command()
def links(root: Root = None) -> None:
    """Rewrite the notebooks' generated cells and the README's links; print the changed files."""
    with explained():
        folder = find_root(root or Path.cwd())
        try:
            changed = write_links(folder, list(load_catalogue(folder).notebooks))
        except AddressError as error:
            raise StudyError(str(error)) from error
        for path in changed:
            typer.echo(path)


def _make(
    root: Path,
    profile: str,
    results: Path,
    edition: Edition,
    environment: Mapping[str, str] | None = None,
) -> list[Path]:
    """Execute every chapter at ``profile`` into ``results``, collect the findings, and return the
    executed copies."""
    catalogue = load_catalogue(root)
    chosen = catalogue.select(catalogue.chapters)
    settings = catalogue.settings(chosen, profile, {})
    executed = _run(catalogue, chosen, settings, results, environment or {})
    write_findings(executed, results / "findings.json", edition)
    write_comparisons(executed, results / COMPARISONS.name)
    return executed


def _run(
    catalogue: Catalogue,
    notebooks: Sequence[Notebook],
    settings: Mapping[str, Values],
    folder: Path,
    environment: Mapping[str, str],
    kept_log: Path | None = None,
) -> list[Path]:
    """Execute ``notebooks`` one after the other; return the executed copies."""
    targets = [folder.absolute() / notebook.path.name for notebook in notebooks]
    for notebook, target in zip(notebooks, targets, strict=True):
        if target.resolve() == notebook.path.resolve():
            raise StudyError(f"{folder} holds the source notebooks: choose another --output")
    writable(folder.absolute(), "the folder of the executed copies")
    if kept_log is not None:
        writable(kept_log.absolute().parent, "the folder of the log")
        if kept_log.is_dir():
            raise StudyError(f"--log {kept_log} is a folder: name a file")
    busy, said = for_a_busy_machine()
    if said:
        typer.echo(f"study: {said}", err=True)
    board = Board(len(notebooks), kept_log)
    for notebook, target in zip(notebooks, targets, strict=True):
        values = settings[notebook.name]
        with board.notebook(notebook.name) as log:
            variables = {**busy, **environment, LOG_VARIABLE: str(log)}
            replaced = _replacements(catalogue.root, values)
            execute(notebook.path, target, values, variables, replaced)
    return targets


def _checked(executor: str) -> str:
    """Return ``executor`` if it is a known executor's name."""
    from lib.training.executors import ExecutorError, check_executor

    try:
        return check_executor(executor)
    except ExecutorError as error:
        raise StudyError(f"--executor: {error}") from error


def _replacements(root: Path, values: Values) -> dict[str, str]:
    """Map the paths of this machine, which executed copies must not show, to what they show."""
    paths = {str(Path.home()): "~", str(root): ".", str(values.get("corpus_root") or ""): ""}
    return {path: shown for path, shown in paths.items() if len(path) > 1 and "/" in path}


def _build(root: Path, edition: Edition) -> None:
    # Sphinx takes seconds to import, and most commands don't build the book.
    from lib.study.book import BookError, build

    try:
        page = build(edition, root)
    except BookError as error:
        raise Failure(str(error)) from error
    typer.echo(page.absolute().as_uri())


def _entry(catalogue: Catalogue, notebook: Notebook) -> dict[str, Any]:
    return {
        "name": notebook.name,
        "title": notebook.title,
        "path": str(notebook.path.relative_to(catalogue.root)),
        "parameters": [_about(name, field) for name, field in notebook.parameters.items()],
        "profiles": {name: own.get(notebook.name, {}) for name, own in catalogue.profiles.items()},
    }


def _about(name: str, field: FieldInfo) -> dict[str, Any]:
    return {
        "name": name,
        "annotation": cell_type(field),
        "default": field.default,
        "comment": field.description,
        "takes": describe(field),
    }


def _table(notebook: Notebook, profiles: Mapping[str, Mapping[str, Values]]) -> Table:
    full = profiles.get("full", {}).get(notebook.name, {})
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("parameter", "default", "full profile", "meaning; values"):
        table.add_column(heading, no_wrap=heading == "parameter")
    for name, field in notebook.parameters.items():
        changed = _literal(full[name]) if name in full else ""
        meaning = f"{field.description}; {describe(field)}"
        table.add_row(*map(Text, (name, _literal(field.default), changed, meaning)))
    return table


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
