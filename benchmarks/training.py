"""Many seeds of a run as one batched model, compared with loops, processes and ``vmap``."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.peers import installed
from benchmarks.plain import Products, synthetic_features, train_by_vmap, train_one
from benchmarks.results import Row
from benchmarks.timing import Step, ratios
from lib.encoders import Features
from lib.runs import RunConfig, ScheduleConfig, Store
from lib.training import train
from lib.training.data import TrainingData
from lib.training.executors import open_executor

FLOOR = "matrix products and AdamW, fused"
"""The work that every way to train must do."""
SEEDS = 20
ROUNDS = 6
"""Least number of turns: a loop on small batches can take twice its shortest time."""
VMAP_AT_ONCE = 8
"""Runs in one call of ``torch.func.vmap``, about as many as a stack of the study holds."""
COUNTS = (1, 2, 4, 8, 20)
GALLERY = 1000
"""Images of a validation or test gallery, of five captions each."""


@dataclass(frozen=True)
class Shape:
    """The sizes of runs.

    Attributes:
        batch: Pairs per batch.
        epochs: Number of epochs.
        widths: Lengths of an image's and a caption's feature.
        embedding: Length of an embedding.
    """

    batch: int
    epochs: int
    widths: tuple[int, int] = (1280, 384)
    embedding: int = 256

    def __str__(self) -> str:
        image, text = self.widths
        return f"B = {self.batch}, {image:,} and {text:,} to {self.embedding}"


STUDY = Shape(batch=128, epochs=15)
"""The main comparison's, on features of EfficientNet-Lite0 and MiniLM."""
SMALL_BATCHES = Shape(batch=16, epochs=4)
SMALL_HEADS = Shape(batch=16, epochs=4, widths=(64, 64), embedding=32)


def measure(quick: bool) -> Iterator[Row]:
    """Yield whole runs, then training alone by shape, then a curve over counts of runs.

    The epochs are the study's, so that the work that a run does once has its usual share; on small
    batches fewer epochs give as many steps.
    """
    seeds = 3 if quick else SEEDS
    seconds, rounds = (1.0, 1) if quick else (10.0, ROUNDS)
    parts = [("whole runs", STUDY, GALLERY // 10 if quick else GALLERY)]
    parts += [("training alone", shape, 8) for shape in (STUDY, SMALL_BATCHES, SMALL_HEADS)]
    with tempfile.TemporaryDirectory() as folder, open_executor("processes") as workers:
        for part, shape, gallery in parts:
            features = sized(shape, gallery)
            made = configs(shape, seeds, 1 if quick else shape.epochs)
            steps = competitors(made, features, Path(folder), workers)
            yield from _rows(part, shape, seeds, steps, seconds, rounds)
        for shape in (STUDY, SMALL_BATCHES, SMALL_HEADS):
            features = sized(shape, 8)
            for count in COUNTS[: 3 if quick else None]:
                made = configs(shape, count, 1 if quick else 2)
                steps = competitors(made, features, Path(folder), workers, few=True)
                yield from _rows("curve", shape, count, steps, seconds / 3, min(rounds, 2))


def _rows(
    part: str, shape: Shape, runs: int, steps: dict[str, Step], seconds: float, least: int
) -> Iterator[Row]:
    found = ratios(steps, "matrix products", seconds=seconds, least=least)
    for way, ratio in found.items():
        named = {"part": part, "shape": str(shape), "batch": shape.batch, "runs": runs, "way": way}
        yield named | vars(ratio)


def sized(shape: Shape, gallery: int) -> Features:
    """Return random features with 1,000 training images and ``gallery`` images per gallery."""
    sizes = {"train": 1000, "val": gallery, "test": gallery}
    return synthetic_features(sizes, shape.widths, captions=5)


def configs(shape: Shape, seeds: int, epochs: int) -> list[RunConfig]:
    """Return one scheduled run per seed."""
    schedule = ScheduleConfig(signal="variance", actuator="direction", gamma=10.0)
    return [
        RunConfig(
            seed=seed,
            batch_size=shape.batch,
            embedding_dim=shape.embedding,
            epochs=epochs,
            train_images=1000,
            schedule=schedule,
        )
        for seed in range(seeds)
    ]


def competitors(
    made: Sequence[RunConfig],
    features: Features,
    folder: Path,
    workers: Executor | None,
    few: bool = False,
) -> dict[str, Step]:
    """Return each way to train the runs, by name; all but ours train the plain loss.

    ``workers`` are the package's processes, one per core; like joblib's, they stay between turns.
    """
    data = TrainingData.of(features, torch.device("cpu"))
    products = Products(made[0], data)

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as store:
            train(
                made,
                store=Store(folder=Path(store), published=folder / "none"),
                features=features,
                device="cpu",
                executor=workers,
            )

    steps: dict[str, Step] = {
        "matrix products": lambda: products(len(made)),
        "ours, in stacks": ours,
        "plain loop": lambda: [train_one(config, data) for config in made],
    }
    if few:
        return steps
    steps[FLOOR] = lambda: products(len(made), updates=True)
    steps["torch.func.vmap"] = lambda: [
        train_by_vmap(made[at : at + VMAP_AT_ONCE], data)
        for at in range(0, len(made), VMAP_AT_ONCE)
    ]
    if installed("joblib"):
        from joblib import Parallel, delayed, dump, load

        # The processes stay between turns, so their start does not count; they map one file.
        file = folder / f"{features.fingerprint}.joblib"
        dump(features, file)
        mapped = load(file, mmap_mode="r")
        pool = Parallel(n_jobs=os.cpu_count() or 1)
        steps["joblib processes"] = lambda: pool(delayed(_from_arrays)(c, mapped) for c in made)
    return steps


def _from_arrays(config: RunConfig, features: Features) -> None:
    # Arrays reach a process of joblib as memory maps; tensors would be copied for every run.
    train_one(config, TrainingData.of(features, torch.device("cpu")))
