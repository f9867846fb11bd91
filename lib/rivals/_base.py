"""Base classes of the rivals: constants per run of a stack, checks of leading axes, one call."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schedulers._checks import Number, as_constant, check_similarity, state_dtype
from ..schedulers._state import KeptInSingle, copy_state, follow, put_back
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import neutral_schedule


class Rival(KeptInSingle):
    """A module for a stack of independent runs with leading axes ``batch_shape``.

    Numbers that are not finite leave the state of their run as it was.
    """

    sets_temperature = False

    def __init__(self, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.batch_shape = tuple(batch_shape)

    def add_constant(self, name: str, value: Number) -> Tensor:
        """Register a number, or a tensor of ``batch_shape``, as a buffer outside ``state_dict``.

        Raises:
            ValueError: As :func:`as_constant`.
        """
        tensor = as_constant(name, value, self.batch_shape)
        self.register_buffer(name, tensor, persistent=False)
        return tensor

    def add_positive(self, name: str, value: Number, rule: str = "positive") -> None:
        """Register a constant; raise a ValueError unless it is positive and finite."""
        tensor = self.add_constant(name, value)
        require(tensor.isfinite() & (tensor > 0), name, rule, value)

    def add_state(self, name: str, last: tuple[int, ...] = (2,)) -> None:
        """Register zeros (*batch_shape, *last), on the CPU and not in half precision, as state."""
        shape = *self.batch_shape, *last
        self.register_buffer(name, torch.zeros(shape, dtype=state_dtype(), device="cpu"))

    def add_steps(self) -> None:
        """Register the number of steps, which the runs share."""
        self.register_buffer("steps", torch.zeros((), dtype=torch.long, device="cpu"))

    def check(self, similarity: Tensor) -> None:
        """Raise a ValueError unless ``similarity`` is (*batch_shape, B, B) with B ≥ 2."""
        check_similarity(similarity)
        self.check_axes("similarity", similarity, 2)
        follow(self, similarity.device)

    def check_axes(self, name: str, tensor: Tensor, last: int) -> None:
        """Raise a ValueError unless the axes before the ``last`` ones are ``batch_shape``."""
        leading = tuple(tensor.shape[: tensor.dim() - last])
        if tensor.dim() < last or leading != self.batch_shape:
            raise ValueError(
                f"{name} has leading axes {leading}, {type(self).__name__} was made with "
                f"batch_shape={self.batch_shape}"
            )


class SchedulingRival(Rival):
    """A rival that is called like :class:`lib.schedulers.Scheduler`; ``_step`` does the work."""

    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule of this step, and count the step.

        In evaluation mode the schedule is neutral and nothing moves.

        Args:
            similarity: (..., B, B), B ≥ 2; its leading axes are ``batch_shape``.
            temperature: The current temperature τ > 0, a number or (...); a rival that sets the
                temperature ignores it.

        Returns:
            The schedule: weights (..., 2), sample weights (..., 2, B) of 1, temperature (...).

        Raises:
            ValueError: ``similarity`` has a wrong shape, other leading axes, B < 2 or, for a single
                run on the CPU, numbers that are not finite; or ``temperature`` is not positive.
        """
        self.check(similarity)
        if not self.training:
            return neutral_schedule(similarity, temperature)
        state = copy_state(self)
        schedule = self._step(similarity, temperature)
        finite = similarity.detach().sum(dim=(-2, -1)).isfinite()
        put_back(self, state, where=~finite)
        return schedule

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
        raise NotImplementedError


def require(good: Tensor, name: str, rule: str, value: object) -> None:
    """Raise a ValueError with a constant's name and rule unless all of ``good`` is true."""
    if not bool(good.all()):
        raise ValueError(f"{name} must be {rule}; it is {value}")
