"""What the ``study`` commands share: their exit codes, options, and how they end in words."""

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
from lib.utils.text import printable

FAILURE = 1
"""The work itself failed: a notebook, the book, a merge with conflicts."""
USAGE = 2
"""What was asked for is not possible; nothing was begun."""
INTERRUPTED = 130
"""Stopped by the person or by the cluster; what is finished is kept."""

Root = Annotated[
    Path | None,
    typer.Option(help="The study's folder; by default the working folder or one above it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Failure(RuntimeError):
    """A command could not do its work; the text says why."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn what can go wrong into a message and an exit status; a traceback means a defect."""
    try:
        yield
    except (StudyError, ParameterError) as error:
        typer.echo(printable(f"study: {error}"), err=True)
        raise typer.Exit(USAGE) from error
    except (NotebookFailure, FindingError, Failure) as error:
        typer.echo(printable(f"study: {error}"), err=True)
        raise typer.Exit(FAILURE) from error
    except KeyboardInterrupt as error:
        # The kernel's sudden end leaves unfinished tasks, of which asyncio would print a trace.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        typer.echo(
            "\nstudy: stopped. Finished training runs are kept; "
            "the same command goes on from there.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from error
