"""Runs of the study written without this package: the peers of batched training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.encoders import Features
from lib.runs import RunConfig
from lib.training.data import TrainingData, batches
from lib.utils.seeds import torch_generator

KS = (1, 5, 10)
SIDES = ("image", "text")


def synthetic_features(sizes: dict[str, int], widths: tuple[int, int], captions: int) -> Features:
    """Return random features: ``sizes`` images per split, ``captions`` captions per image."""
    rng = np.random.default_rng(0)
    count = sum(sizes.values())
    owner = np.repeat(np.arange(count), captions)
    shared = rng.standard_normal((count, 32), dtype=np.float32)
    image = shared @ rng.standard_normal((32, widths[0]), dtype=np.float32)
    text = shared[owner] @ rng.standard_normal((32, widths[1]), dtype=np.float32)
    for values in (image, text):
        values += 6 * rng.standard_normal(values.shape, dtype=np.float32)
    return Features(
        image=image,
        text=text,
        caption_owner=owner,
        image_ids=tuple(f"image{row}" for row in range(count)),
        splits=tuple(name for name, size in sizes.items() for _ in range(size)),
        fingerprint=f"random features {sizes} {widths} {captions}",
        corpus_fingerprint=f"random corpus {sizes} {captions}",
    )


class Standardised:
    """A run's features, standardised once on its training pairs, and its batches."""

    def __init__(self, config: RunConfig, data: TrainingData) -> None:
        self._config, self._data = config, data
        self._pairs = data.pairs(config)
        image = torch.from_numpy(self._pairs.image)
        text = torch.from_numpy(self._pairs.all_captions())
        self._moments = [_moments(data.image[image]), _moments(data.text[text])]
        self.image, self.text = self._apply(data.image, 0), self._apply(data.text, 1)
        self.galleries = [
            (self._apply(g.image, 0), self._apply(g.text, 1), g.caption_owner)
            for g in (data.validation, data.test)
        ]

    def epoch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the rows of the images and of the captions of an epoch, in their order."""
        images, captions = self._data.epoch(self._config, self._pairs, number)
        return torch.from_numpy(images), torch.from_numpy(captions)

    def _apply(self, values: Tensor, side: int) -> Tensor:
        mean, scale = self._moments[side]
        return (values - mean) / scale


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(dim=0), values.std(dim=0, correction=0)


def start(config: RunConfig, widths: tuple[int, int]) -> list[Tensor]:
    """Return the initial weights of both heads in a run of the study."""
    weights = []
    for name, width in zip(SIDES, widths, strict=True):
        draws = torch_generator(config.seed, "initialisation", name)
        drawn = torch.rand(width, config.embedding_dim, generator=draws)
        weights.append((2 * drawn - 1) / width**0.5)
    return weights


def train_one(config: RunConfig, data: TrainingData) -> tuple[float, list[float]]:
    """Train a run with ``nn.Linear``, ``cross_entropy`` and ``AdamW``; return its last loss and the
    recalls of its last epoch on the test gallery."""
    own = Standardised(config, data)
    widths = data.image.shape[1], data.text.shape[1]
    heads = [nn.Linear(width, config.embedding_dim) for width in widths]
    with torch.no_grad():
        for head, weight in zip(heads, start(config, widths), strict=True):
            head.weight.copy_(weight.T)
            head.bias.zero_()
    optimiser = torch.optim.AdamW(
        [
            {"params": [head.weight for head in heads], "weight_decay": config.weight_decay},
            {"params": [head.bias for head in heads], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    last = 0.0
    for epoch in range(1, config.epochs + 1):
        images, captions = own.epoch(epoch)
        for part in batches(config.train_images, config.batch_size):
            image = F.normalize(heads[0](own.image[images[part]]), dim=-1)
            text = F.normalize(heads[1](own.text[captions[part]]), dim=-1)
            logits = image @ text.T / config.temperature
            labels = torch.arange(len(logits))
            loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            # The study's records have every loss, so read it here too.
            last = loss.item()
        with torch.no_grad():
            recall(heads[0], heads[1], own.galleries[0])
    with torch.no_grad():
        return last, recall(heads[0], heads[1], own.galleries[1])


def recall(image_head: Any, text_head: Any, gallery: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    """Return the recalls of both directions in percent, by ``topk``, without a rule for ties."""
    image, text, owner = gallery
    image, text = (F.normalize(image_head(image), dim=-1), F.normalize(text_head(text), dim=-1))
    similarity = image @ text.T
    most = min(max(KS), *similarity.shape)
    top = owner[similarity.topk(most, dim=1).indices] == torch.arange(len(image))[:, None]
    found = [100 * top[:, :k].any(dim=1).float().mean().item() for k in KS]
    top = similarity.T.topk(most, dim=1).indices == owner[:, None]
    return found + [100 * top[:, :k].any(dim=1).float().mean().item() for k in KS]


def train_by_vmap(configs: Sequence[RunConfig], data: TrainingData) -> list[float]:
    """Train runs as one with ``torch.func.vmap`` over their weights; return their last losses."""
    own = [Standardised(config, data) for config in configs]
    widths = data.image.shape[1], data.text.shape[1]
    drawn = [torch.stack(side) for side in zip(*(start(c, widths) for c in configs), strict=True)]
    biases = [torch.zeros(len(configs), configs[0].embedding_dim) for _ in SIDES]
    shape = configs[0]
    optimiser = torch.optim.AdamW(
        [
            {"params": drawn, "weight_decay": shape.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=shape.learning_rate,
    )
    parameters = [*drawn, *biases]

    def loss_of(parameters: list[Tensor], image: Tensor, text: Tensor) -> Tensor:
        image = F.normalize(image @ parameters[0] + parameters[2], dim=-1)
        text = F.normalize(text @ parameters[1] + parameters[3], dim=-1)
        logits = image @ text.T / shape.temperature
        by_row = torch.log_softmax(logits, 1).diagonal()
        by_column = torch.log_softmax(logits, 0).diagonal()
        return -(by_row + by_column).mean() / 2

    step = torch.func.vmap(torch.func.grad_and_value(loss_of))
    losses = torch.zeros(len(configs))
    for epoch in range(1, shape.epochs + 1):
        drawn_rows = [one.epoch(epoch) for one in own]
        for part in batches(shape.train_images, shape.batch_size):
            image = torch.stack(
                [one.image[rows[0][part]] for one, rows in zip(own, drawn_rows, strict=True)]
            )
            text = torch.stack(
                [one.text[rows[1][part]] for one, rows in zip(own, drawn_rows, strict=True)]
            )
            gradients, losses = step(parameters, image, text)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            losses.tolist()
        for run, one in enumerate(own):
            _recall_of(parameters, run, one.galleries[0])
    for run, one in enumerate(own):
        _recall_of(parameters, run, one.galleries[1])
    return losses.tolist()


def _recall_of(
    parameters: list[Tensor], run: int, gallery: tuple[Tensor, Tensor, Tensor]
) -> list[float]:
    image, text, image_bias, text_bias = (parameter[run] for parameter in parameters)
    return recall(lambda x: x @ image + image_bias, lambda x: x @ text + text_bias, gallery)


class Products:
    """Only the matrix products of runs, one run after the other, into allocated memory.

    With ``updates``, a step of PyTorch's fused AdamW over both heads' weights follows the products
    of each step; every way to train needs one.
    """

    def __init__(self, config: RunConfig, data: TrainingData) -> None:
        draws = torch.Generator().manual_seed(0)
        size, out = config.batch_size, config.embedding_dim
        self._epochs = config.epochs
        # The last batch of an epoch may be shorter.
        self._sizes = [
            min(size, config.train_images - part.start)
            for part in batches(config.train_images, size)
        ]
        widths = data.image.shape[1], data.text.shape[1]
        weights = [torch.zeros(width, out, requires_grad=True) for width in widths]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draws)
        self._optimiser = torch.optim.AdamW(weights, fused=True)

        def made(*shapes: tuple[int, int, int]) -> list[_Product]:
            return [_Product(shape, draws) for shape in shapes]

        self._step = {
            # Forward: both heads, the similarities. Backward: the similarities' two factors, the
            # weights of both heads; features need no gradient.
            n: made(
                *((n, width, out) for width in widths), (n, out, n),
                (n, n, out), (n, n, out), *((width, n, out) for width in widths),
            )
            for n in set(self._sizes)
        }  # fmt: skip
        self._examination = [
            made(
                (len(g.image), widths[0], out),
                (len(g.text), widths[1], out),
                (len(g.image), out, len(g.text)),
            )
            for g in (data.validation, data.test)
        ]

    def __call__(self, runs: int, *, updates: bool = False) -> None:
        """Compute the products of ``runs`` runs, with ``updates`` also the optimiser's steps."""
        for _ in range(runs):
            for _ in range(self._epochs):
                for size in self._sizes:
                    for product in self._step[size]:
                        product()
                    if updates:
                        self._optimiser.step()
                for product in self._examination[0]:
                    product()
            for product in self._examination[1]:
                product()


class _Product:
    def __init__(self, shape: tuple[int, int, int], draws: torch.Generator) -> None:
        rows, inner, columns = shape
        self._left = torch.randn(rows, inner, generator=draws)
        self._right = torch.randn(inner, columns, generator=draws)
        self._out = torch.empty(rows, columns)

    def __call__(self) -> None:
        torch.mm(self._left, self._right, out=self._out)
