"""Signals: what a scheduler reads off the similarity matrix, for each query of each direction.

A signal takes the similarities ``(..., B, B)`` of a batch of B pairs and the temperature ``(...)``,
and returns ``(..., 2, B)``: index 0 of the second-last axis is ``i2t`` (a row of the matrix is one
image query), index 1 is ``t2i`` (a column is one caption query).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lib.schedulers.checks import Number, check_similarity, check_temperature

Signal = Callable[[Tensor, Tensor], Tensor]
"""What maps similarities (..., B, B) and a temperature (...) to (..., 2, B)."""


def variance(similarity: Tensor, temperature: Number) -> Tensor:
    """Variance of each query's similarities (population variance; the temperature plays no role).

    By the law of total variance the difference of its two directions' means,
    mean row variance − mean column variance = Var(column means) − Var(row means),
    is a difference in hubness between captions and images.

    >>> variance(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor(0.1))
    tensor([[0.2500, 0.2500],
            [0.0000, 0.0000]])
    """
    check_similarity(similarity, finite=False)
    return torch.stack(
        [similarity.var(dim=-1, correction=0), similarity.var(dim=-2, correction=0)], dim=-2
    )


def entropy(similarity: Tensor, temperature: Number) -> Tensor:
    """Entropy of each query's softmax at the temperature, divided by log B: in [0, 1].

    >>> entropy(torch.zeros(2, 2), torch.tensor(0.1))
    tensor([[1., 1.],
            [1., 1.]])
    """
    check_similarity(similarity, finite=False)
    check_temperature(temperature)
    tau = torch.as_tensor(temperature, dtype=similarity.dtype, device=similarity.device)
    logits = similarity / tau[..., None, None]
    directions = []
    for dim in (-1, -2):
        log_p = torch.log_softmax(logits, dim=dim)
        directions.append(-(log_p.exp() * log_p).sum(dim=dim))
    # Rounding must not put an entropy just above its bound or below zero.
    return (torch.stack(directions, dim=-2) / math.log(similarity.shape[-1])).clamp(0, 1)


def spread(similarity: Tensor, temperature: Number) -> Tensor:
    """Range, maximum minus minimum, of each query's similarities.

    >>> spread(torch.tensor([[1.0, 0.0], [0.5, 0.25]]), torch.tensor(0.1))
    tensor([[1.0000, 0.2500],
            [0.5000, 0.2500]])
    """
    check_similarity(similarity, finite=False)
    return torch.stack(
        [
            similarity.amax(dim=-1) - similarity.amin(dim=-1),
            similarity.amax(dim=-2) - similarity.amin(dim=-2),
        ],
        dim=-2,
    )


def margin(similarity: Tensor, temperature: Number) -> Tensor:
    """Similarity of each query's true pair minus the mean of its negatives.

    No scheduler can use it between directions: its mean is the same in both, whatever the matrix.
    It is here to show that, and for the ``sample`` actuator's users.
    """
    check_similarity(similarity, finite=False)
    size = similarity.shape[-1]
    positive = similarity.diagonal(dim1=-2, dim2=-1)
    negatives = torch.stack([similarity.sum(dim=-1), similarity.sum(dim=-2)], dim=-2)
    negatives = (negatives - positive.unsqueeze(-2)) / (size - 1)
    return positive.unsqueeze(-2) - negatives


SIGNALS: dict[str, Signal] = {"variance": variance, "entropy": entropy, "spread": spread}
"""The signals of the study by name; an entry more is a signal more, everywhere."""
