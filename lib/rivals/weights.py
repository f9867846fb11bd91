"""Weights of the two directions from their losses: three rules of multi-task learning.

Each direction is a task; its loss is the mean InfoNCE loss of its queries.
"""

import torch
from torch import Tensor, nn

from ..losses import info_nce
from ..schedulers._checks import Number
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import neutral_schedule
from ._base import SchedulingRival, require

LEAST_LOSS = 1e-8
"""Smaller losses count as this, so that no ratio of losses divides by zero."""


class UncertaintyWeights(SchedulingRival):
    r"""Weights that are the inverse of a learned variance of each direction.

    With :math:`s_d = \log \sigma_d^2`, a direction adds to the objective, as a classification does
    in the paper,

    .. math::

       \exp(-s_d) \, \ell_d + s_d / 2 , \qquad w_d = \exp(-s_d) .

    :func:`lib.losses.weighted_mean` of the schedule plus :meth:`penalty` is half the sum over both
    directions. For constant losses, :math:`w_d` settles at :math:`1 / (2 \ell_d)`: the weights do
    not sum to 2.

    The weights have a gradient, unlike those of other schedules: give ``log_variance`` to an
    optimiser, without weight decay.

    Args:
        batch_shape: Leading axes of a stack of independent runs.

    Source:
        Kendall et al. (2018).

    >>> rule = UncertaintyWeights()
    >>> rule(torch.eye(2), 0.1).weights.tolist(), rule.penalty().item()
    ([1.0, 1.0], 0.0)
    """

    def __init__(self, *, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__(batch_shape)
        self.log_variance = nn.Parameter(torch.zeros(*self.batch_shape, 2))

    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
        weights = torch.exp(-self.log_variance).to(similarity.dtype)
        return neutral_schedule(similarity, temperature)._replace(weights=weights)

    def penalty(self) -> Tensor:
        """Return the term that keeps the weights from falling to zero; add it to the loss.

        Returns:
            (...): half the sum of the two terms s / 2, with gradient.
        """
        return self.log_variance.sum(dim=-1) / 4


class AnalyticUncertaintyWeights(SchedulingRival):
    r"""Weights from the softmax of the inverse losses.

    .. math::

       w_d = 2 \operatorname{softmax}_d \bigl( 1 / (T \, \ell_d) \bigr)

    The uncertainties that minimise the objective of :class:`lib.rivals.UncertaintyWeights` at the
    losses of the step, normalised: to the sum 2 here, to 1 in the paper.

    Args:
        softness: T > 0, a number or of ``batch_shape``; the larger, the more equal the weights.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: ``softness`` is not positive.

    Source:
        UW-SO, Kirchdorfer et al. (2024).

    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> AnalyticUncertaintyWeights(softness=1.0)(similarity, temperature=0.2).weights
    tensor([0.0912, 1.9088])
    """

    softness: Tensor

    def __init__(self, softness: Number = 1.0, *, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__(batch_shape)
        self.add_positive("softness", softness)

    @torch.no_grad()
    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
        losses = info_nce(similarity, temperature).mean(dim=-1).clamp(min=LEAST_LOSS)
        weights = 2 * torch.softmax(1 / (losses * self.softness.unsqueeze(-1)), dim=-1)
        return neutral_schedule(similarity, temperature)._replace(weights=weights)


class DynamicWeightAverage(SchedulingRival):
    r"""Weights from how fast each direction's loss falls.

    With :math:`L_d(t)` the mean loss of a direction in period t,

    .. math::

       w_d = 2 \operatorname{softmax}_d (r_d / T) , \qquad r_d = \frac{L_d(t - 1)}{L_d(t - 2)} ,

    and 1 in the first two periods; both weights sum to 2.

    Args:
        softness: T > 0, a number or of ``batch_shape``; the larger, the more equal the weights.
        period: Number of steps whose losses are averaged, a number or of ``batch_shape``.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source:
        Liu et al. (2019), where a period is an epoch.

    >>> rule = DynamicWeightAverage(period=1)
    >>> steps = [torch.eye(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.eye(2)]
    >>> [rule(similarity, 0.5).weights.tolist() for similarity in steps][:2]
    [[1.0, 1.0], [1.0, 1.0]]
    """

    softness: Tensor
    period: Tensor
    total: Tensor
    last: Tensor
    before: Tensor
    steps: Tensor

    def __init__(
        self, softness: Number = 2.0, *, period: int | Tensor, batch_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__(batch_shape)
        self.add_positive("softness", softness)
        periods = self.add_constant("period", period)
        require((periods >= 1) & (periods == periods.round()), "period", "a count, ≥ 1", period)
        for name in ("total", "last", "before"):
            self.add_state(name)
        self.add_steps()

    @torch.no_grad()
    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
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
