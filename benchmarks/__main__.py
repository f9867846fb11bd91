"""``python -m benchmarks``: measure on an idle machine, and write the results."""

import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import batches, recall, step, training
from benchmarks.peers import absent
from benchmarks.results import Row, write
from lib.chapters.benchmarks.measurements import FOLDER
from lib.utils.progress import say, track


class Case(StrEnum):
    """A group of measurements."""

    STEP = "step"
    TRAINING = "training"
    RECALL = "recall"
    BATCHES = "batches"


MEASURED: dict[Case, Callable[[bool], Iterable[Row]]] = {
    Case.STEP: step.measure,
    Case.TRAINING: training.measure,
    Case.RECALL: recall.measure,
    Case.BATCHES: batches.measure,
}


def main(
    only: Annotated[
        list[Case] | None, typer.Option(help="Measure only this; may be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes and few rounds, to see that it works.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; by default lib/chapters/benchmarks/measured, and with "
            "--quick _build/benchmarks, since quick numbers are not for publication."
        ),
    ] = None,
) -> None:
    """Measure speed and memory against other libraries, in most of an hour on two idle cores.

    Every time is a ratio to another one, measured in turns with it in one run. Each case is written
    as soon as it is measured. Peers that are not installed are listed as absent:
    pip install '.\\[bench]' installs them all.
    """
    folder = output or (Path(__file__).parent.parent / "_build" / "benchmarks" if quick else FOLDER)
    if missing := absent():
        say(f"absent, so not compared with: {', '.join(missing)} (pip install '.[bench]')")
    for case in only or list(Case):
        begun = time.monotonic()
        rows = list(track(MEASURED[case](quick), case.value))
        path = write(folder, case.value, rows, quick=quick)
        say(f"{case.value}: {len(rows)} figures in {time.monotonic() - begun:.0f} s")
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
