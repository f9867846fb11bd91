"""A step of the loss, forward and backward from embeddings, compared with other libraries."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.memory import peak
from benchmarks.peers import installed
from benchmarks.results import Row
from benchmarks.timing import Step, ratios
from lib.losses import ScheduledContrastiveLoss
from lib.schedulers import Fixed, Scheduler

SIZES = (128, 1024)
GROWTH = (32, 64, 128, 256, 512, 1024, 2048)
WIDTH = 256
TEMPERATURE = 0.1
METRIC_LEARNING = "pytorch-metric-learning NTXentLoss, one direction"
CUBIC = (METRIC_LEARNING,)
"""Losses of B³ numbers, every positive beside all negatives: 4 GiB per matrix at B = 1,024."""
CUBIC_UP_TO = 256
LIMIT = 240.0
"""Seconds after which a separate process is stopped."""


def measure(quick: bool) -> Iterator[Row]:
    """Yield each loss's time at two sizes of batch, then the scheduler's own over many sizes."""
    for size in SIZES:
        steps = competitors(size)
        # Steps that may not fit into memory are timed once, in a separate process.
        large = [name for name in steps if name in CUBIC and size > CUBIC_UP_TO]
        fitting = {name: step for name, step in steps.items() if name not in large}
        yield from _rows("against peers", size, fitting, 1 if quick else 25)
        for way in [] if quick else large:
            yield _alone(size, way)
    for size in GROWTH[: 3 if quick else None]:
        ours = ("plain loss", "scheduled loss", "scheduler alone")
        steps = {name: step for name, step in competitors(size).items() if name in ours}
        yield from _rows("growth", size, steps, 1 if quick else 6)


def _alone(size: int, way: str) -> Row:
    found = peak(
        "from benchmarks.step import competitors\nfrom benchmarks.timing import timed\n"
        f"steps = competitors({size})\nway = {way!r}",
        "return timed(steps[way])",
        "return min(timed(steps['plain loss']) for _ in range(10))",
        LIMIT,
    )
    row: dict[str, str | float | int | None] = {"part": "against peers, alone", "batch": size}
    row["way"] = way
    if isinstance(found, str):
        return row | {"failed": found}
    return row | {"once": found.said / found.after, "peak_mib": found.peak}


def _rows(part: str, size: int, steps: dict[str, Step], seconds: float) -> Iterator[Row]:
    for way, ratio in ratios(steps, "plain loss", seconds=seconds).items():
        yield {"part": part, "batch": size, "way": way, **vars(ratio)}


def competitors(size: int) -> dict[str, Step]:
    """Return one step per loss, by name, on the same batch of random embeddings."""
    draws = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(size, WIDTH, generator=draws), dim=-1).requires_grad_()
        for _ in range(2)
    )
    scale = torch.tensor(1 / TEMPERATURE, requires_grad=True)
    losses = dict(_losses(image, text, scale))
    similarity = (image @ text.T).detach()
    scheduler = Scheduler()

    def stepped(loss: Callable[[], Tensor]) -> Step:
        def step() -> None:
            image.grad = text.grad = scale.grad = None
            loss().backward()

        return step

    steps: dict[str, Step] = {name: stepped(loss) for name, loss in losses.items()}
    steps["scheduler alone"] = lambda: scheduler.quick(similarity, TEMPERATURE)
    return steps


def _losses(image: Tensor, text: Tensor, scale: Tensor) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the losses by name; libraries without a learned scale have less to compute."""
    labels = torch.arange(len(image))

    def plain() -> Tensor:
        logits = scale * image @ text.T
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    yield "plain loss", plain
    scheduled = ScheduledContrastiveLoss(Scheduler())
    yield "scheduled loss", lambda: scheduled(image, text, scale)
    fixed = ScheduledContrastiveLoss(Fixed())
    yield "ours, not scheduled", lambda: fixed(image, text, scale)
    if installed("open_clip_torch"):
        from open_clip import ClipLoss

        clip = ClipLoss(cache_labels=True)
        yield "open_clip ClipLoss", lambda: clip(image, text, scale)
    if installed("pytorch-metric-learning"):
        from pytorch_metric_learning.losses import NTXentLoss

        # The library computes one direction; the same labels object twice would mean one set.
        ntxent, copied = NTXentLoss(TEMPERATURE), labels.clone()
        yield METRIC_LEARNING, lambda: ntxent(image, labels, ref_emb=text, ref_labels=copied)
    if installed("lightly"):
        from lightly.loss import NTXentLoss as Lightly

        lightly = Lightly(TEMPERATURE)
        yield "lightly NTXentLoss", lambda: lightly(image, text)
