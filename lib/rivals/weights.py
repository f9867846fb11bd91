"""Weights of the two directions from their losses: three rules of multi-task learning.

A task is a direction here; its loss is the mean InfoNCE loss of its queries.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib.losses import info_nce
from lib.rivals.base import Rival, require
from lib.schedulers.actuators import Schedule
from lib.schedulers.checks import Number
from lib.schedulers.scheduler import neutral_schedule

LEAST_LOSS = 1e-8
"""A loss under this counts as this, so that no ratio of losses divides by zero."""


class UncertaintyWeights(Rival):
    """Learn a log-variance s_d = log σ_d² of each direction: w_d = exp(−s_d).

    Kendall et al. (CVPR 2018), with their terms for a classification: a task adds
    exp(−s_d) ℓ_d + s_d / 2 to the objective. :func:`lib.losses.weighted_mean` of the schedule plus
    :meth:`penalty` is half the sum over both directions. Where the losses stood still, w_d would
    settle at 1 / (2 ℓ_d): the weights do not sum to 2.

    The weights carry gradient, unlike those of other schedules: give ``log_variance`` to an
    optimiser, without weight decay.

    Args:
        batch_shape: Leading axes of a stack of independent runs.

    >>> rule = UncertaintyWeights()
    >>> rule(torch.eye(2), 0.1).weights.tolist(), rule.penalty().item()
    ([1.0, 1.0], 0.0)
    """

    def __init__(self, *, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__(batch_shape)
        self.log_variance = nn.Parameter(torch.zeros(*self.batch_shape, 2))

    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule for ``similarity`` (..., B, B), weights with their gradient.

        Raises:
            ValueError: ``similarity`` has a wrong shape, or B < 2.
        """
        self.check(similarity)
        weights = torch.exp(-self.log_variance).to(similarity.dtype)
        return neutral_schedule(similarity, temperature)._replace(weights=weights)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward

    def penalty(self) -> Tensor:
        """Return what to add to the loss, (...): ½ Σ_d s_d / 2."""
        return self.log_variance.sum(dim=-1) / 4


class AnalyticUncertaintyWeights(Rival):
    """Weights from the softmax of the inverse losses: w_d = 2 softmax(1 / (ℓ_d T)).

    UW-SO of Kirchdorfer et al. (GCPR 2024), whose weights sum to 1: the uncertainties that would
    minimise the objective of :class:`UncertaintyWeights` at the losses of the step, normalised.

    Args:
        softness: T > 0, a number or of ``batch_shape``; the larger, the more equal the weights.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: ``softness`` is not positive.

    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> AnalyticUncertaintyWeights(softness=1.0)(similarity, temperature=0.2).weights
    tensor([0.0912, 1.9088])
    """

    softness: Tensor

    def __init__(self, softness: Number = 1.0, *, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__(batch_shape)
        values = self.add_constant("softness", softness)
        require(values.isfinite() & (values > 0), "softness", "positive", softness)

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule for ``similarity`` (..., B, B).

        Raises:
            ValueError: ``similarity`` has a wrong shape, or B < 2.
        """
        self.check(similarity)
        losses = info_nce(similarity, temperature).mean(dim=-1).clamp(min=LEAST_LOSS)
        weights = 2 * torch.softmax(1 / (losses * self.softness.unsqueeze(-1)), dim=-1)
        return neutral_schedule(similarity, temperature)._replace(weights=weights)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward


class DynamicWeightAverage(Rival):
    """Weights from how fast each direction's loss falls: w_d = 2 softmax(r_d / T).

    r_d = L_d(t − 1) / L_d(t − 2), L_d(t) the mean loss of period t; in the first two periods w = 1
    (Liu et al., CVPR 2019, where a period is an epoch).

    Args:
        softness: T > 0, a number or of ``batch_shape``; the larger, the more equal the weights.
        period: Steps whose losses are averaged, a number or of ``batch_shape``.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is out of its range; the message names it.
    """

    softness: Tensor
    period: Tensor
    total: Tensor
    last: Tensor
    before: Tensor
    steps: Tensor

    def __init__(
        self,
        softness: Number = 2.0,
        *,
        period: int | Tensor,
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(batch_shape)
        values = self.add_constant("softness", softness)
        require(values.isfinite() & (values > 0), "softness", "positive", softness)
        periods = self.add_constant("period", period)
        require((periods >= 1) & (periods == periods.round()), "period", "a count, ≥ 1", period)
        for name in ("total", "last", "before"):
            self.register_buffer(name, torch.zeros(*self.batch_shape, 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule for ``similarity`` (..., B, B), and count its losses in.

        Raises:
            ValueError: ``similarity`` has a wrong shape, or B < 2.
        """
        self.check(similarity)
        period = self.period.unsqueeze(-1)
        begins = (self.steps > 0) & (self.steps % period == 0)
        self.before.copy_(torch.where(begins, self.last, self.before))
        self.last.copy_(torch.where(begins, self.total / period, self.last))
        self.total.copy_(torch.where(begins, torch.zeros_like(self.total), self.total))
        rate = self.last.clamp(min=LEAST_LOSS) / self.before.clamp(min=LEAST_LOSS)
        moved = 2 * torch.softmax(rate / self.softness.unsqueeze(-1), dim=-1)
        neutral = neutral_schedule(similarity, temperature)
        weights = torch.where(self.steps >= 2 * period, moved.to(similarity.dtype), neutral.weights)
        self.total += info_nce(similarity, temperature).mean(dim=-1)
        self.steps += 1
        return neutral._replace(weights=weights)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward
