"""A temperature that follows a cosine, whatever the similarities."""

import math

import torch
from torch import Tensor

from ..schedulers._checks import Number
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import neutral_schedule
from ._base import SchedulingRival, require


class CosineTemperature(SchedulingRival):
    r"""A temperature that swings between two bounds and starts at the upper one.

    At step t = 0, 1, …

    .. math::

       \tau_t = \tau_{\text{low}} + (\tau_{\text{high}} - \tau_{\text{low}})
       \, \frac{1 + \cos(2 \pi t / T)}{2}

    Args:
        low: Least temperature, above 0, a number or of ``batch_shape``.
        high: Greatest temperature, at least ``low``, a number or of ``batch_shape``.
        period: T, steps per full swing, a number or of ``batch_shape``.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source:
        Kukleva et al. (2023), who count t in epochs.

    >>> cosine = CosineTemperature(low=0.1, high=0.5, period=4)
    >>> [round(cosine(torch.eye(2), 0.1).temperature.item(), 3) for _ in range(5)]
    [0.5, 0.3, 0.1, 0.3, 0.5]
    """

    low: Tensor
    high: Tensor
    period: Tensor
    steps: Tensor
    sets_temperature = True

    def __init__(
        self, low: Number, high: Number, period: Number, *, batch_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__(batch_shape)
        self.add_positive("low", low)
        highs = self.add_constant("high", high)
        require(highs.isfinite() & (highs >= self.low), "high", "finite and not under low", high)
        self.add_positive("period", period, "a positive number of steps")
        self.add_steps()

    @torch.no_grad()
    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
        phase = torch.cos(2 * math.pi * self.steps / self.period)
        self.steps += 1
        return neutral_schedule(similarity, self.low + (self.high - self.low) * (1 + phase) / 2)
