"""A schedule that is given in advance, step by step, whatever the similarities."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._checks import Number, check_similarity
from ._state import KeptInSingle, follow
from .actuators import Schedule
from .scheduler import neutral_schedule


class Trace(KeptInSingle):
    """Return given weights and temperatures, one step per call; after the last step, repeat it.

    The control for every scheduler: a path from another run, or drawn at random, adapts to nothing.
    ``state_dict`` holds the path and the number of steps taken.

    Args:
        weights: (..., T, 2) weight of each direction at each step, ``i2t`` then ``t2i``.
        temperature: (..., T) temperature at each step; None keeps the current one.

    Raises:
        ValueError: The shapes don't fit each other, or a value is not finite, a weight negative or
            a temperature not positive.

    >>> trace = Trace(torch.tensor([[1.5, 0.5], [1.0, 1.0]]))
    >>> similarity = torch.eye(3)
    >>> [trace(similarity, 0.1).weights.tolist() for _ in range(3)]
    [[1.5, 0.5], [1.0, 1.0], [1.0, 1.0]]
    """

    weights: Tensor
    temperature: Tensor | None
    steps: Tensor

    def __init__(self, weights: Tensor, temperature: Tensor | None = None) -> None:
        super().__init__()
        if weights.dim() < 2 or weights.shape[-1] != 2 or not weights.shape[-2]:
            raise ValueError(f"weights must be (..., T, 2), T ≥ 1; they are {tuple(weights.shape)}")
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError("weights must be finite and not negative at every step")
        if temperature is not None:
            if temperature.shape != weights.shape[:-1]:
                raise ValueError(
                    f"temperature must be (..., T) = {tuple(weights.shape[:-1])}, as in weights; "
                    f"it is {tuple(temperature.shape)}"
                )
            if not bool((temperature.isfinite() & (temperature > 0)).all()):
                raise ValueError("temperature must be finite and positive at every step")
        self.register_buffer("weights", weights)
        self.register_buffer("temperature", temperature)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long, device="cpu"))

    @property
    def sets_temperature(self) -> bool:
        """Whether the path has temperatures."""
        return self.temperature is not None

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule of the next step; in evaluation mode, the neutral one.

        Args:
            similarity: (..., B, B), B ≥ 2; its leading axes are those of the path.
            temperature: The current temperature, a number or (...); returned if the path has none.

        Returns:
            The schedule: weights (..., 2), sample weights (..., 2, B) of 1, temperature (...).

        Raises:
            ValueError: As :meth:`Scheduler.forward`.
        """
        check_similarity(similarity)
        if similarity.shape[:-2] != self.weights.shape[:-2]:
            raise ValueError(
                f"similarity has leading axes {tuple(similarity.shape[:-2])}, the trace has "
                f"{tuple(self.weights.shape[:-2])}"
            )
        follow(self, similarity.device)
        schedule = neutral_schedule(similarity, temperature)
        if not self.training:
            return schedule
        now = self.steps.clamp(max=self.weights.shape[-2] - 1)
        self.steps.add_(1)
        schedule = schedule._replace(weights=self.weights.index_select(-2, now[None]).squeeze(-2))
        if self.temperature is not None:
            tau = self.temperature.index_select(-1, now[None]).squeeze(-1)
            schedule = schedule._replace(temperature=tau)
        return schedule

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward
