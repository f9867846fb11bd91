"""The training loop: runs of the same shapes as one batched model, a stack.

What a run computes does not depend on its neighbours in the stack.
"""

import datetime
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.metrics import collapsed, retrieval_metrics_from_embeddings
from lib.models import DualEncoder, Embeddings, ProjectionHead, matmul
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.schedulers import variance
from lib.training.data import Gallery, Pairs, TrainingData, batches
from lib.training.objective import Objective
from lib.training.optimiser import StackAdamW
from lib.training.schedules import Sources
from lib.utils.seeds import torch_generator
from lib.utils.version import code_version

RSUM = TEST_COLUMNS.index("rsum")


@dataclass(frozen=True)
class Fitted:
    """A stack of trained runs.

    Attributes:
        model: Each run's heads at the epoch that validation chose.
        best_epoch: (R,) that epoch, from 1.
        epochs: (R, epochs, len(EPOCH_COLUMNS)).
        steps: (R, steps, len(STEP_COLUMNS)).
        alive: (R,) whether the run's losses and embeddings were finite throughout.
        lost: What happened to those that are not alive.
    """

    model: DualEncoder
    best_epoch: Tensor
    epochs: Tensor
    steps: Tensor
    alive: Tensor
    lost: list[str]


def drawn_heads(
    configs: Sequence[RunConfig], widths: tuple[int, int], batch_shape: tuple[int, ...] = ()
) -> DualEncoder:
    """Return heads of the shape that runs share, each run's drawn by its seed, on the CPU.

    Args:
        configs: The runs of a stack, or a single one.
        widths: Length of an image's and of a caption's feature.
        batch_shape: The stack's leading axis; none for a run alone.
    """
    shape = configs[0]
    heads = []
    for name, width, hidden_layers in zip(("image", "text"), widths, _layers(shape), strict=True):
        head = ProjectionHead(
            width,
            shape.embedding_dim,
            hidden_layers=hidden_layers,
            hidden_features=shape.hidden_features,
            dropout=shape.dropout,
            batch_shape=batch_shape,
        )
        head.initialise([torch_generator(c.seed, "initialisation", name) for c in configs])
        heads.append(head)
    return DualEncoder(*heads)


def _layers(config: RunConfig) -> tuple[int, int]:
    """Return the hidden layers of the image head and of the text head."""
    text = config.text_hidden_layers
    return config.hidden_layers, config.hidden_layers if text is None else text


def count_weights(config: RunConfig, widths: tuple[int, int]) -> int:
    """Return how many weights a run's heads have, for features of these lengths."""
    total = 0
    for width, hidden_layers in zip(widths, _layers(config), strict=True):
        layers = [width, *[config.hidden_features] * hidden_layers, config.embedding_dim]
        total += sum(a * b for a, b in itertools.pairwise(layers))
    return total


def _build_model(
    configs: Sequence[RunConfig], data: TrainingData, pairs: Sequence[Pairs]
) -> DualEncoder:
    """Build the stack's heads: drawn by each run's seed, standardised on each run's pairs."""
    widths = data.image.shape[1], data.text.shape[1]
    model = drawn_heads(configs, widths, batch_shape=(len(configs),)).to(data.device)
    for run, own in enumerate(pairs):
        image, text = (
            torch.from_numpy(rows).to(data.device) for rows in (own.image, own.all_captions())
        )
        model.image.standardise(data.image[image], run)
        model.text.standardise(data.text[text], run)
    if not configs[0].centre:
        model.image.mean.zero_()
        model.text.mean.zero_()
    return model


def pair_similarities(embedded: Embeddings, copies: int) -> Tensor:
    """Return the similarities (..., P, P) of a batch's pairs, each image being in several of them.

    Args:
        embedded: Images (..., B, d), each once, and their captions (..., P, d) in the same order,
            P = B · copies.
        copies: Captions of an image; its row stands for each of its pairs.
    """
    similarity = matmul(embedded.image, embedded.text.mT)
    return similarity if copies == 1 else similarity.repeat_interleave(copies, dim=-2)


def test_metrics(image: Tensor, text: Tensor, owner: Tensor) -> Tensor:
    """Return (R, len(TEST_COLUMNS)) metrics of embeddings (R, N, d) and (R, M, d)."""
    # From embeddings, so that equal ones tie exactly: a collapsed run must score chance.
    measured = retrieval_metrics_from_embeddings(image, text, owner)
    columns = [*measured.recalls, measured.rsum, *measured.median_ranks]
    # A mean's last bits may depend on the stack's layout; nine decimals of a recall don't.
    return torch.stack(columns, dim=-1).round(decimals=9)


class Examined(NamedTuple):
    """What the runs of a stack score on a gallery.

    Attributes:
        metrics: (R, len(TEST_COLUMNS)).
        finite: (R,) whether a run's embeddings are finite. The metrics of one whose are not, or
            that was lost before, are those of a collapsed model, and must not be used.
        collapsed: Whether each run's have all but become one, where that was asked for.
    """

    metrics: Tensor
    finite: Tensor
    collapsed: tuple[bool, ...]


class _Examination:
    """A gallery that a stack is measured on again and again: its features are standardised once."""

    def __init__(self, model: DualEncoder, gallery: Gallery) -> None:
        self._model = model
        with torch.no_grad():
            self._image = model.image.standardised(gallery.image)
            self._text = model.text.standardised(gallery.text)
        self._owner = gallery.caption_owner

    def measure(self, alive: Tensor, *, collapse: bool = False) -> Examined:
        """Measure every run as it is now, those that are ``alive`` (R,), run by run.

        Args:
            alive: Whether a run's losses have been finite so far.
            collapse: Whether to look for collapse.
        """
        metrics, finite, fallen = [], [], []
        for run, living in enumerate(alive.tolist()):
            image = self._model.image.project_run(run, self._image[run : run + 1])
            text = self._model.text.project_run(run, self._text[run : run + 1])
            # Coordinates of unit vectors can't overflow a sum: it is finite if all of them are.
            sound = bool((image.sum() + text.sum()).isfinite())
            finite.append(sound)
            if not (living and sound):
                image.zero_()
                text.zero_()
            metrics.append(test_metrics(image, text, self._owner))
            fallen.append(collapse and (collapsed(image) or collapsed(text)))
        return Examined(
            torch.cat(metrics), torch.tensor(finite, device=alive.device), tuple(fallen)
        )


class _Rows:
    """Rows of a table, copied into the same memory at every step: what was there is gone."""

    def __init__(self, values: Tensor, most: int) -> None:
        self._values = values
        self._room = values.new_empty(most, values.shape[-1])

    def __call__(self, rows: Tensor) -> Tensor:
        """Return rows (R, n) of the table as (R, n, width)."""
        room = self._room[: rows.numel()]
        # Whole rows are copied several times faster than by indexing, which goes by element.
        torch.index_select(self._values, 0, rows.flatten(), out=room)
        return room.view(*rows.shape, -1)


def _optimiser(
    groups: list[dict[str, Any]], shape: RunConfig, device: torch.device, objective: Objective
) -> tuple[torch.optim.Optimizer, Callable[[Tensor, Tensor], Tensor]]:
    """Return the optimiser of a stack, and the product by its weights that goes with it."""
    options: dict[str, Any] = {"lr": shape.learning_rate, "weight_decay": shape.weight_decay}
    if device.type != "cpu":
        return torch.optim.AdamW(groups, **options, foreach=True), matmul
    optimiser = StackAdamW(groups, **options)
    return optimiser, matmul if objective.differentiates else optimiser.matmul


def fit_stack(configs: Sequence[RunConfig], data: TrainingData, sources: Sources) -> Fitted:
    """Train runs of the same shapes together."""
    shape, device = configs[0], data.device
    pairs = [data.pairs(config) for config in configs]
    model = _build_model(configs, data, pairs)
    objective = Objective(configs, sources, device)
    shared = [model.image.weights[-1], model.text.weights[-1]]
    groups: list[dict[str, Any]] = [
        {"params": [*model.image.weights, *model.text.weights]},
        {"params": [*model.image.biases, *model.text.biases], "weight_decay": 0.0},
        *objective.groups(),
    ]
    optimiser, product = _optimiser(groups, shape, device, objective)
    dropout = None
    if shape.dropout:
        dropout = [torch_generator(config.seed, "dropout") for config in configs]

    validation = _Examination(model, data.validation)
    copies = shape.captions_at_once
    batched = batches(shape.train_images, shape.batch_size, copies)
    # To zero after the last step, without restarts (Loshchilov and Hutter, ICLR 2017, eq. 5).
    decay = None
    if shape.learning_rate_decay == "cosine":
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, shape.epochs * len(batched))
    pairs_at_once = len(configs) * shape.batch_size * copies
    copied_image, copied_text = (_Rows(v, pairs_at_once) for v in (data.image, data.text))
    epochs: list[Tensor] = []
    steps: list[Tensor] = []
    lost: list[str] = []
    alive = torch.ones(len(configs), dtype=torch.bool, device=device)
    best_rsum = torch.full((len(configs),), -1.0, dtype=torch.float64, device=device)
    best_epoch = torch.zeros(len(configs), dtype=torch.long, device=device)
    best_state = [parameter.detach().clone() for parameter in model.parameters()]
    for epoch in range(1, shape.epochs + 1):
        draws = []
        for config, own in zip(configs, pairs, strict=True):
            image_rows, caption_rows = data.epoch(config, own, epoch)
            draws.append((image_rows, caption_rows, own.places(image_rows)))
        images, captions, places = (
            torch.from_numpy(np.stack(rows)).to(device) for rows in zip(*draws, strict=True)
        )
        epoch_steps = []
        for batch in batched:
            image = copied_image(images[:, batch][:, ::copies])
            text = copied_text(captions[:, batch])
            embedded = Embeddings(
                model.image.project(model.image.standardise_(image), dropout, product),
                model.text.project(model.text.standardise_(text), dropout, product),
            )
            similarity = pair_similarities(embedded, copies)
            loss, used = objective(similarity, places[:, batch], shared)
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            if decay is not None:
                decay.step()
            objective.project()
            signals = variance(similarity.detach(), used.temperature.detach()).mean(dim=-1)
            epoch_steps.append(
                torch.cat(
                    [loss[:, None], used.weights, used.temperature[:, None], signals], dim=-1
                ).detach()
            )
        block = torch.stack(epoch_steps)
        steps.append(block)
        losses = block[..., 0].double()
        metrics, finite, _ = validation.measure(alive)
        sound = block.isfinite().all(dim=-1)
        for run in torch.nonzero(alive & ~(sound.all(dim=0) & finite)).flatten():
            bad = torch.nonzero(~sound[:, run]).flatten()
            step = f"step {int(bad[0]) + 1}" if bad.numel() else "its last step"
            lost.append(not_finite(configs[run], f"epoch {epoch}, {step}"))
            alive[run] = False
        rsum = metrics[:, RSUM]
        better = rsum > best_rsum
        best_rsum = torch.where(better, rsum, best_rsum)
        best_epoch[better] = epoch
        for kept, parameter in zip(best_state, model.parameters(), strict=True):
            kept[better] = parameter.detach()[better]
        epochs.append(torch.cat([losses.mean(dim=0)[:, None], metrics[:, : RSUM + 1]], dim=-1))
        if not alive.any():
            break

    with torch.no_grad():
        for parameter, kept in zip(model.parameters(), best_state, strict=True):
            parameter.copy_(kept)
    return Fitted(
        model=model,
        best_epoch=best_epoch,
        epochs=torch.stack(epochs, dim=1),
        steps=torch.cat(steps).transpose(0, 1),
        alive=alive,
        lost=lost,
    )


def train_stack(
    configs: Sequence[RunConfig], data: TrainingData, sources: Sources
) -> tuple[list[RunRecord], list[str]]:
    """Train runs of the same shapes together; return their records and what went wrong."""
    begun = time.perf_counter()
    fitted = fit_stack(configs, data, sources)
    test = _Examination(fitted.model, data.test).measure(fitted.alive, collapse=True)
    for run in torch.nonzero(fitted.alive & ~test.finite).flatten():
        fitted.lost.append(not_finite(configs[run], "embeddings of the test split"))
        fitted.alive[run] = False
    epoch_series = fitted.epochs.cpu().numpy()
    step_series = fitted.steps.float().cpu().numpy()
    seconds = (time.perf_counter() - begun) / len(configs)
    records = [
        RunRecord(
            config=config,
            corpus_fingerprint=data.corpus_fingerprint,
            best_epoch=int(fitted.best_epoch[run]),
            test=dict(zip(TEST_COLUMNS, test.metrics[run].tolist(), strict=True)),
            epochs=epoch_series[run],
            steps=step_series[run],
            collapsed=test.collapsed[run],
            seconds=seconds,
            made=circumstances(data.device),
        )
        for run, config in enumerate(configs)
        if fitted.alive[run]
    ]
    return records, fitted.lost


def not_finite(config: RunConfig, where: str) -> str:
    """Return how a message names a run and where its numbers stopped being finite."""
    return f"{config.method}, seed {config.seed}: {where} (run {config.run_id})"


def circumstances(device: torch.device) -> dict[str, str]:
    """Return what a record says of how it was made: date, device, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "code": code_version(),
        "date": datetime.date.today().isoformat(),
        "device": f"{device.type} ({name})",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
