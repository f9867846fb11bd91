"""A temperature that swings on a cosine, whatever the similarities."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schedulers._checks import Number
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import neutral_schedule
from ._base import Rival, require


class CosineTemperature(Rival):
    r"""Swing the temperature between two bounds, from the high one.

    At step t = 0, 1, …

    .. math::

       \tau_t = \tau_{\text{low}} + (\tau_{\text{high}} - \tau_{\text{low}})
       \, \frac{1 + \cos(2 \pi t / T)}{2}

    Args:
        low: Least temperature, above 0, a number or of ``batch_shape``.
        high: Greatest temperature, not under ``low``, a number or of ``batch_shape``.
        period: T, steps of a full swing, a number or of ``batch_shape``.
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
        self,
        low: Number,
        high: Number,
        period: Number,
        *,
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(batch_shape)
        lows, highs = self.add_constant("low", low), self.add_constant("high", high)
        require(lows.isfinite() & (lows > 0), "low", "positive", low)
        require(highs.isfinite() & (highs >= lows), "high", "finite and not under low", high)
        periods = self.add_constant("period", period)
        require(periods.isfinite() & (periods > 0), "period", "a positive number of steps", period)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the neutral schedule at this step's temperature, and count the step.

        Args:
            similarity: (..., B, B), B ≥ 2; its leading axes are ``batch_shape``.
            temperature: Plays no role; every schedule is called alike.

        Returns:
            The schedule: weights (..., 2) and sample weights (..., 2, B) of 1, temperature (...).

        Raises:
            ValueError: ``similarity`` has a wrong shape, other leading axes, B < 2 or, for a single
                run on the CPU, numbers that are not finite.
        """
        self.check(similarity)
        phase = torch.cos(2 * math.pi * self.steps / self.period)
        self.steps += 1
        return neutral_schedule(similarity, self.low + (self.high - self.low) * (1 + phase) / 2)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward
