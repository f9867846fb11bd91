"""Many seeds of a run as one batched model, against loops, processes and ``vmap``."""

import os
import tempfile
from collections.abc import Iterator, Sequence
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
from lib.training.sweep import STACK_SIZE

WIDTHS = (1280, 384)
"""Lengths of an image's and a caption's feature: those of EfficientNet-Lite0 and MiniLM."""
SEEDS = 20
COUNTS = (1, 2, 4, 8, 20)
BATCHES = {"small batches": 16, "the study's batches": 128}
GALLERY = 1000
"""Images of a validation or test gallery, of five captions each."""


def measure(quick: bool) -> Iterator[Row]:
    """Yield whole runs, then training alone with small and usual batches, then a curve of counts.

    An epoch is the same as any other, so that few stand for the study's fifteen.
    """
    seeds = 3 if quick else SEEDS
    seconds, least = (1.0, 1) if quick else (10.0, 3)
    examined = sized(GALLERY // 10 if quick else GALLERY)
    alone = sized(8)
    shapes = [
        ("whole runs", examined, BATCHES["the study's batches"], 1 if quick else 2),
        # As many steps of either size: what a run does once weighs alike.
        *(("training alone", alone, n, 1 if quick else n // 16) for n in BATCHES.values()),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for part, features, size, epochs in shapes:
            made = configs(seeds, size, epochs)
            steps = competitors(made, features, Path(folder))
            found = ratios(steps, "matrix products", seconds=seconds, least=least)
            for way, ratio in found.items():
                yield {"part": part, "batch": size, "runs": seeds, "way": way, **vars(ratio)}
        for size in BATCHES.values():
            for count in COUNTS[: 3 if quick else None]:
                steps = competitors(configs(count, size, 1), alone, Path(folder), few=True)
                found = ratios(steps, "matrix products", seconds=seconds / 2, least=least)
                for way, ratio in found.items():
                    yield {"part": "curve", "batch": size, "runs": count, "way": way, **vars(ratio)}


def sized(gallery: int) -> Features:
    """Return random features with 1,000 training images and galleries of a size."""
    sizes = {"train": 1000, "val": gallery, "test": gallery}
    return synthetic_features(sizes, WIDTHS, captions=5 if gallery > 8 else 1)


def configs(seeds: int, batch_size: int, epochs: int) -> list[RunConfig]:
    """Return runs of the main comparison's shape, scheduled ones, by seed."""
    schedule = ScheduleConfig(signal="variance", actuator="direction", gamma=10.0)
    return [
        RunConfig(
            seed=seed, batch_size=batch_size, epochs=epochs, train_images=1000, schedule=schedule
        )
        for seed in range(seeds)
    ]


def competitors(
    made: Sequence[RunConfig], features: Features, folder: Path, few: bool = False
) -> dict[str, Step]:
    """Return each way to train the runs, by name; all but ours train the plain loss."""
    data = TrainingData.of(features, torch.device("cpu"))
    products = Products(made[0], data)

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as store:
            train(
                made,
                store=Store(folder=Path(store), published=folder / "none"),
                features=features,
                device="cpu",
                executor="serial",
            )

    steps: dict[str, Step] = {
        "matrix products": lambda: products(len(made)),
        "ours, in stacks": ours,
        "plain loop": lambda: [train_one(config, data) for config in made],
    }
    if few:
        return steps
    size = STACK_SIZE["cpu"]
    steps["torch.func.vmap"] = lambda: [
        train_by_vmap(made[at : at + size], data) for at in range(0, len(made), size)
    ]
    if installed("joblib"):
        from joblib import Parallel, delayed

        # The processes stay between turns, so that their start is not counted.
        pool = Parallel(n_jobs=os.cpu_count() or 1)
        steps["joblib processes"] = lambda: pool(delayed(_from_arrays)(c, features) for c in made)
    return steps


def _from_arrays(config: RunConfig, features: Features) -> None:
    # Arrays reach a process of joblib as memory maps, tensors would be copied for every run.
    train_one(config, TrainingData.of(features, torch.device("cpu")))
