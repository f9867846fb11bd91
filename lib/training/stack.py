"""The training loop: runs of the same shapes as one batched model, a stack. The numbers of a run do
not depend on the other runs of its stack."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lib.models import DualEncoder, Embeddings, ProjectionHead, canonical_heads, matmul
from lib.runs import STEP_COLUMNS, RunConfig
from lib.training.data import Gallery, Pairs, TrainingData, batches, draw_epoch
from lib.training.history import History, Scores, StackResult, score
from lib.training.objective import Objective
from lib.training.optimiser import StackAdamW
from lib.training.schedules import Replayed
from lib.training.step import TrainingStep
from lib.utils.seeds import torch_generator


def init_heads(
    configs: Sequence[RunConfig], widths: tuple[int, int], batch_shape: tuple[int, ...] = ()
) -> DualEncoder:
    """Return the heads of runs, drawn by each run's seed, on the CPU.

    Args:
        configs: The runs of a stack, or a single run.
        widths: Lengths of an image's and a caption's features.
        batch_shape: The stack's leading axis; empty for a single run.
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
    """Return the numbers of hidden layers of the image head and of the text head."""
    text = config.text_hidden_layers
    return config.hidden_layers, config.hidden_layers if text is None else text


def count_weights(config: RunConfig, widths: tuple[int, int]) -> int:
    """Return the number of weights of a run's heads for features of these lengths."""
    total = 0
    for width, hidden_layers in zip(widths, _layers(config), strict=True):
        layers = [width, *[config.hidden_features] * hidden_layers, config.embedding_dim]
        total += sum(a * b for a, b in itertools.pairwise(layers))
    return total


def _build_model(
    configs: Sequence[RunConfig], data: TrainingData, pairs: Sequence[Pairs]
) -> DualEncoder:
    """Build the stack's heads, standardised on each run's pairs: drawn by each run's seed, or as
    the run's start sets them."""
    widths = data.image.shape[1], data.text.shape[1]
    model = init_heads(configs, widths, batch_shape=(len(configs),)).to(data.device)
    for run, (config, drawn) in enumerate(zip(configs, pairs, strict=True)):
        image = data.image[torch.from_numpy(drawn.image).to(data.device)]
        text = data.text[torch.from_numpy(drawn.all_captions()).to(data.device)]
        model.image.standardise(image, run)
        model.text.standardise(text, run)
        if config.start is not None:
            count = torch.from_numpy(drawn.caption_count).to(data.device)
            owner = torch.repeat_interleave(count)
            options = config.start.model_dump()
            heads = canonical_heads(image, text, config.embedding_dim, owner=owner, **options)
            for part, started in ((model.image, heads.image), (model.text, heads.text)):
                part.weights[0].data[run] = started.weights[0].detach()
    if not configs[0].centre:
        model.image.mean.zero_()
        model.text.mean.zero_()
    return model


def pair_similarities(embedded: Embeddings, copies: int) -> Tensor:
    """Return the similarities (..., P, P) of a batch's pairs.

    Args:
        embedded: Images (..., B, d) and their captions (..., P, d) in the same order.
        copies: Captions per image, P / B; an image's row is repeated for each.
    """
    similarity = matmul(embedded.image, embedded.text.mT)
    return similarity if copies == 1 else similarity.repeat_interleave(copies, dim=-2)


class _GalleryEmbedder:
    """Embeds a gallery after each epoch; the features are standardised once."""

    def __init__(self, model: DualEncoder, gallery: Gallery) -> None:
        self._model, self._owner = model, gallery.caption_owner
        with torch.no_grad():
            self._image = model.image.standardised(gallery.image)
            self._text = model.text.standardised(gallery.text)

    def score(self, alive: Tensor, check_collapse: bool = False) -> Scores:
        """Score every run with its present weights; arguments as for :func:`score`."""
        return score(self._embedded(), self._owner, alive, check_collapse)

    def _embedded(self) -> Iterator[tuple[Tensor, Tensor]]:
        for run in range(len(self._image)):
            one = slice(run, run + 1)
            image = self._model.image.project_run(run, self._image[one])
            yield image, self._model.text.project_run(run, self._text[one])


class _GatherBuffer:
    """A reusable buffer for gathered rows; each call overwrites the previous result."""

    def __init__(self, values: Tensor, most: int) -> None:
        self._values, self._buffer = values, values.new_empty(most, values.shape[-1])

    def __call__(self, rows: Tensor) -> Tensor:
        """Return rows (R, n) of the values as (R, n, width)."""
        gathered = self._buffer[: rows.numel()]
        # Copies whole rows; indexing copies by element, several times slower.
        torch.index_select(self._values, 0, rows.flatten(), out=gathered)
        return gathered.view(*rows.shape, -1)


class _BatchEmbedder:
    """Embeds a stack's batches, with dropout."""

    def __init__(
        self,
        model: DualEncoder,
        data: TrainingData,
        configs: Sequence[RunConfig],
        product: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        shape = configs[0]
        self._model, self._product, self._dropout = model, product, None
        if shape.dropout:
            self._dropout = [torch_generator(config.seed, "dropout") for config in configs]
        self._copies = shape.captions_at_once
        pairs = len(configs) * shape.batch_size * self._copies
        self._image, self._text = _GatherBuffer(data.image, pairs), _GatherBuffer(data.text, pairs)

    def __call__(self, images: Tensor, captions: Tensor) -> Embeddings:
        """Embed pairs (R, P), given as rows: each image once, and every caption."""
        image = self._model.image.standardise_(self._image(images[:, :: self._copies]))
        text = self._model.text.standardise_(self._text(captions))
        return Embeddings(
            self._model.image.project(image, self._dropout, self._product),
            self._model.text.project(text, self._dropout, self._product),
        )


def _optimiser(
    model: DualEncoder, objective: Objective, shape: RunConfig, device: torch.device
) -> tuple[torch.optim.Optimizer, Callable[[Tensor, Tensor], Tensor]]:
    """Return the optimiser of a stack, and the matrix product to use with its weights."""
    groups: list[dict[str, Any]] = [
        {"params": [*model.image.weights, *model.text.weights]},
        {"params": [*model.image.biases, *model.text.biases], "weight_decay": 0.0},
        *objective.groups(),
    ]
    options: dict[str, Any] = {"lr": shape.learning_rate, "weight_decay": shape.weight_decay}
    if device.type != "cpu":
        return torch.optim.AdamW(groups, **options, foreach=True), matmul
    optimiser = StackAdamW(groups, **options)
    return optimiser, matmul if objective.differentiates else optimiser.matmul


def fit_stack(
    configs: Sequence[RunConfig], data: TrainingData, replayed: Replayed
) -> tuple[DualEncoder, History]:
    """Train runs of the same shapes together; return their heads at their best epochs."""
    shape, device = configs[0], data.device
    pairs = [data.pairs(config) for config in configs]
    model = _build_model(configs, data, pairs)
    objective = Objective(configs, replayed, device)
    optimiser, product = _optimiser(model, objective, shape, device)
    embed = _BatchEmbedder(model, data, configs, product)
    copies = shape.captions_at_once
    batched = batches(shape.train_images, shape.batch_size, copies) if shape.epochs else []
    none = torch.empty(0, len(configs), len(STEP_COLUMNS), device=device)
    step = TrainingStep(objective, optimiser, shape, len(batched))
    shared = [model.image.weights[-1], model.text.weights[-1]]
    validation = _GalleryEmbedder(model, data.validation)
    history = History(configs, device)
    best = [parameter.detach().clone() for parameter in model.parameters()]
    while not history.finished:
        epoch = len(history.epochs) + 1
        images, captions, places = draw_epoch(configs, data, pairs, epoch)
        steps = []
        for batch in batched:
            embedded = embed(images[:, batch], captions[:, batch])
            steps.append(step(pair_similarities(embedded, copies), places[:, batch], shared))
        taken = torch.stack(steps) if steps else none
        better = history.add_epoch(taken, validation.score(history.alive))
        for kept, parameter in zip(best, model.parameters(), strict=True):
            kept[better] = parameter.detach()[better]
    with torch.no_grad():
        for parameter, kept in zip(model.parameters(), best, strict=True):
            parameter.copy_(kept)
    return model, history


def train_stack(
    configs: Sequence[RunConfig], data: TrainingData, replayed: Replayed
) -> StackResult:
    """Train runs of the same shapes together, and score them on the test split."""
    begun = time.perf_counter()
    model, history = fit_stack(configs, data, replayed)
    test = _GalleryEmbedder(model, data.test).score(history.alive, True)
    return history.result(test, data, begun)
