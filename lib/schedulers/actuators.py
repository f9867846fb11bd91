"""Actuators: what a signal sets, and how.

``observe`` returns what is smoothed over steps; ``act`` turns the smoothed value into a schedule.
An actuator has no state: :class:`lib.schedulers.Scheduler` has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .signals import Signal


class Schedule(NamedTuple):
    """The weights and the temperature of one step, detached from the graph.

    Args:
        weights: (..., 2) weight of each direction's loss, ``i2t`` then ``t2i``.
        sample_weights: (..., 2, B) weight of each query's loss, with mean 1 in each direction.
        temperature: (...) temperature that divides the similarities.

    >>> weights, sample_weights, temperature = Schedule(
    ...     weights=torch.tensor([1.2, 0.8]),
    ...     sample_weights=torch.ones(2, 4),
    ...     temperature=torch.tensor(0.1),
    ... )
    >>> weights.mean()
    tensor(1.)
    """

    weights: Tensor
    sample_weights: Tensor
    temperature: Tensor


class Smoothed(NamedTuple):
    """Input of an actuator's ``act``.

    Attributes:
        average: (..., C) bias-corrected moving average of what the actuator observes.
        reference: (..., C) average at the end of the warm-up.
        gamma: (...) exponent.
        low, high: (...) bounds of ``magnitude``.
    """

    average: Tensor
    reference: Tensor
    gamma: Tensor
    low: Tensor
    high: Tensor


Observe = Callable[[Signal, Tensor, Tensor, Tensor | None], Tensor]
Act = Callable[[Signal, Tensor, Schedule, Smoothed], Schedule]


@dataclass(frozen=True)
class Actuator:
    """One rule.

    Attributes:
        channels: C, the number of smoothed values.
        observe: (signal, similarity, temperature, target) to (..., C).
        act: (signal, similarity, neutral schedule, smoothed values) to a schedule.
        sets_temperature: Whether ``act`` sets the schedule's temperature.
    """

    channels: int
    observe: Observe
    act: Act
    sets_temperature: bool = False


def powers(values: Tensor, gamma: Tensor) -> Tensor:
    """Return values^γ divided by its sum over the last axis; equal values give equal shares.

    Logarithms keep every exponent from overflowing. Zeros count as the smallest normal number: a
    collapsed model, whose signals are all zero, gives equal shares and never 0 / 0.
    """
    tiny = torch.finfo(values.dtype).tiny
    return torch.softmax(gamma.unsqueeze(-1) * values.clamp(min=tiny).log(), dim=-1)


def _observe_directions(
    signal: Signal, similarity: Tensor, temperature: Tensor, target: Tensor | None
) -> Tensor:
    return signal(similarity, temperature).mean(dim=-1)


def _observe_mean(
    signal: Signal, similarity: Tensor, temperature: Tensor, target: Tensor | None
) -> Tensor:
    return signal(similarity, temperature).mean(dim=(-2, -1)).unsqueeze(-1)


def _act_direction(
    signal: Signal, similarity: Tensor, neutral: Schedule, smoothed: Smoothed
) -> Schedule:
    return neutral._replace(weights=2 * powers(smoothed.average, smoothed.gamma))


def _act_magnitude(
    signal: Signal, similarity: Tensor, neutral: Schedule, smoothed: Smoothed
) -> Schedule:
    tiny = torch.finfo(similarity.dtype).tiny
    growth = (smoothed.average.clamp(min=tiny) / smoothed.reference.clamp(min=tiny)).squeeze(-1)
    weight = torch.clamp(growth**smoothed.gamma, smoothed.low, smoothed.high)
    return neutral._replace(weights=weight.unsqueeze(-1).expand_as(neutral.weights))


def _observe_sharpness(
    signal: Signal, similarity: Tensor, temperature: Tensor, target: Tensor | None
) -> Tensor:
    if signal.scale is None or target is None:
        raise ValueError("sharpness needs a signal with a scale, and a target")
    # The scale of a collapsed model is 0, but a temperature must stay positive.
    return signal.scale(similarity, temperature, target).clamp(min=1e-3).unsqueeze(-1)


def _act_sharpness(
    signal: Signal, similarity: Tensor, neutral: Schedule, smoothed: Smoothed
) -> Schedule:
    return neutral._replace(temperature=smoothed.average.squeeze(-1))


def _act_sample(
    signal: Signal, similarity: Tensor, neutral: Schedule, smoothed: Smoothed
) -> Schedule:
    values = signal(similarity, neutral.temperature)
    shares = powers(values, smoothed.gamma.unsqueeze(-1))
    return neutral._replace(sample_weights=similarity.shape[-1] * shares)


ACTUATORS: dict[str, Actuator] = {
    "direction": Actuator(2, _observe_directions, _act_direction),
    "magnitude": Actuator(1, _observe_mean, _act_magnitude),
    "sharpness": Actuator(1, _observe_sharpness, _act_sharpness, sets_temperature=True),
    "sample": Actuator(2, _observe_directions, _act_sample),
}
"""The actuators of :class:`lib.schedulers.Scheduler` by name.

>>> list(ACTUATORS)
['direction', 'magnitude', 'sharpness', 'sample']
"""
