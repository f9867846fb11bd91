"""What the ``study`` commands share: exit codes, options and error messages."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lib.chapters.shared.checking import ParameterError
from lib.chapters.shared.findings import FindingError
from lib.study.catalogue import StudyError
from lib.study.execution import NotebookFailure
from lib.utils.files import explain, require_writable
from lib.utils.text import printable

FAILURE = 1
"""The work itself failed: a notebook, the book, a merge with conflicts."""
USAGE = 2
"""The request is not possible; nothing was begun."""
INTERRUPTED = 130
"""Stopped by the user or by the cluster; finished work is kept."""

Root = Annotated[
    Path | None,
    typer.Option(help="The study's folder; by default the working folder or one above it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Failure(RuntimeError):
    """A command could not do its work; the text says why."""


def writable(folder: Path, what: str) -> None:
    """Refuse a place where results cannot be written, before the work.

    Raises:
        StudyError: The folder cannot be made, or nothing can be written into it.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise StudyError(f"{what} cannot be written: {explain(error)}; name another") from error


@contextmanager
def explained() -> Iterator[None]:
    """Turn expected errors into a message and an exit status; a traceback means a defect."""
    try:
        yield
    except (StudyError, ParameterError, NotebookFailure, FindingError, Failure) as error:
        typer.echo(printable(f"study: {error}"), err=True)
        usage = isinstance(error, StudyError | ParameterError)
        raise typer.Exit(USAGE if usage else FAILURE) from error
    except OSError as error:
        typer.echo(printable(f"study: {explain(error)}"), err=True)
        raise typer.Exit(FAILURE) from error
    except KeyboardInterrupt as error:
        # The kernel's sudden end leaves unfinished tasks; asyncio would print a traceback of each.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        typer.echo(
            "\nstudy: stopped. Finished training runs are kept; "
            "the same command goes on from there.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from error
