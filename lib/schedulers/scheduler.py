"""Schedulers as modules: called once per step with the similarities, they return the schedule."""

import math
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ._checks import (
    Number,
    as_constant,
    check_similarity,
    check_temperature,
    is_readable,
    state_dtype,
)
from ._state import KeptInSingle, follow
from .actuators import ACTUATORS, Schedule, Smoothed
from .signals import SIGNALS, mean_variances, mean_variances_on_host


def neutral_schedule(similarity: Tensor, temperature: Number) -> Schedule:
    """Return the schedule that changes nothing, for ``similarity`` (..., B, B)."""
    leading = similarity.shape[:-2]
    temperature = check_temperature(temperature, leading)
    ones = torch.ones((), dtype=similarity.dtype, device=similarity.device)
    tau = torch.as_tensor(temperature, dtype=similarity.dtype, device=similarity.device)
    return Schedule(
        weights=ones.expand(*leading, 2),
        sample_weights=ones.expand(*leading, 2, similarity.shape[-1]),
        temperature=tau.detach().expand(leading),
    )


class Fixed(nn.Module):
    """The fixed baseline: every weight is 1, and the given temperature stays as it is.

    With :class:`lib.losses.ScheduledContrastiveLoss` this is the loss of CLIP.

    Source:
        Radford et al. (2021), figure 3.

    >>> Fixed()(torch.eye(3), temperature=0.1).weights
    tensor([1., 1.])
    """

    sets_temperature = False

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the neutral schedule.

        Args:
            similarity: (..., B, B), B ≥ 2.
            temperature: τ > 0, a number or (...).

        Returns:
            The schedule: weights (..., 2) and sample weights (..., 2, B) of 1, temperature (...).

        Raises:
            ValueError: As :meth:`Scheduler.forward`.
        """
        check_similarity(similarity)
        return neutral_schedule(similarity, temperature)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward


T = TypeVar("T", covariant=True)
_BOUNDS = ("low", "high")
_CONSTANTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "gamma": (torch.isfinite, "finite"),
    "beta": (lambda value: (value >= 0) & (value < 1), "in [0, 1)"),
    "warmup": (lambda value: (value >= 0) & (value == value.round()), "0 or a count"),
    "target": (lambda value: (value > 0) & value.isfinite(), "positive"),
    "low": (lambda value: (value > 0) & (value <= 1), "0 < low ≤ 1 ≤ high"),
    "high": (lambda value: value >= 1, "0 < low ≤ 1 ≤ high"),
}
"""The constants of a scheduler: the test of each one's values, and its words in a message."""


class _Constant(Generic[T]):
    """The type of a constant: read as a tensor, set as a number or a tensor."""

    def __get__(self, scheduler: nn.Module, owner: type) -> T:
        raise NotImplementedError

    def __set__(self, scheduler: nn.Module, value: Number) -> None:
        raise NotImplementedError


class Scheduler(KeptInSingle):
    r"""A signal, smoothed over steps, that drives an actuator.

    With u the mean of the signal over a direction's queries and t counted from 1, the moving
    average is corrected for its start at zero:

    .. math::

       m_t = \beta\, m_{t-1} + (1 - \beta)\, u_t , \qquad \bar u_t = m_t / (1 - \beta^t) .

    ``direction`` sets the weights of the two directions, ``magnitude`` one weight for both,
    ``sharpness`` the temperature (here for the signal ``variance``), and ``sample`` the weight of
    each query:

    .. math::

       w_d = \frac{2\, \bar u_d^{\,\gamma}}{\bar u_{\text{i2t}}^{\,\gamma}
       + \bar u_{\text{t2i}}^{\,\gamma}} , \qquad
       w = \operatorname{clip}\Bigl( (\bar u / \bar u_0)^{\gamma} \Bigr) , \qquad
       \tau = \bar\sigma / c , \qquad
       a_i = \frac{B\, u_i^{\gamma}}{\sum_k u_k^{\gamma}} .

    ``variance × direction``, the default, is our reconstruction of the paper's scheduler;
    ``entropy × direction`` and ``spread × direction`` differ only in the signal. Each call in
    training mode is one step, unless the signal is not finite: such a batch leaves the state of its
    run as it was. In evaluation mode the schedule is neutral and nothing moves. ``state_dict``
    holds the moving average.

    The constants ``gamma``, ``beta``, ``warmup``, ``target``, ``low`` and ``high`` are buffers that
    each call reads. Assign a number or a tensor of ``batch_shape`` to change one: the value is
    checked as in the constructor and copied into the buffer, on any device. State and constants
    stay in single precision (or double) if the module is converted to half precision.

    Args:
        signal: ``"variance"``, ``"entropy"``, ``"spread"`` or another name in
            :data:`lib.schedulers.SIGNALS`.
        actuator: ``"direction"``, ``"magnitude"``, ``"sharpness"`` or ``"sample"``.
        gamma: Exponent γ, a number or of ``batch_shape``; if it is positive, a larger signal gives
            a larger weight.
        beta: Smoothing β in [0, 1), a number or of ``batch_shape``.
        warmup: Steps during which the schedule stays neutral, a count or of ``batch_shape``.
        target: c > 0, a number or of ``batch_shape``, which ``sharpness`` holds constant: the
            standard deviation (``variance``) or the range (``spread``) of the logits, or their mean
            entropy as a fraction of log B (``entropy``, below 1). Default: that of the signal.
        bounds: Least and greatest weight of ``magnitude``, around 1.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is unknown or out of its range; the message names it.

    Source:
        Pillai (2025), reconstructed; the correction is that of Kingma and Ba (2015), section 3.

    >>> scheduler = Scheduler("variance", "direction")
    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> scheduler(similarity, temperature=0.1).weights
    tensor([1.5455, 0.4545])
    >>> scheduler.gamma = 2.0
    >>> scheduler.gamma, int(scheduler.steps)
    (tensor(2.), 1)
    """

    average: Tensor
    reference: Tensor
    steps: Tensor
    gamma: _Constant[Tensor]
    beta: _Constant[Tensor]
    warmup: _Constant[Tensor]
    target: _Constant[Tensor | None]
    low: _Constant[Tensor]
    high: _Constant[Tensor]

    def __init__(
        self,
        signal: str = "variance",
        actuator: str = "direction",
        *,
        gamma: Number = 1.0,
        beta: Number = 0.9,
        warmup: int | Tensor = 0,
        target: Number | None = None,
        bounds: tuple[float, float] = (0.5, 2.0),
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if signal not in SIGNALS:
            raise ValueError(f"signal {signal!r} is unknown; the signals are {', '.join(SIGNALS)}")
        if actuator not in ACTUATORS:
            raise ValueError(
                f"actuator {actuator!r} is unknown; the actuators are {', '.join(ACTUATORS)}"
            )
        self.signal_name, self.actuator_name = signal, actuator
        self._signal, self._actuator = SIGNALS[signal], ACTUATORS[actuator]
        if target is None:
            target = self._signal.default_target
        if self._actuator.sets_temperature:
            if self._signal.scale is None:
                raise ValueError(
                    f"the signal {signal!r} has no scale, so {actuator} cannot set a temperature "
                    "with it; give its entry in SIGNALS one, or use another actuator"
                )
            if target is None:
                raise ValueError(f"target must be given: the signal {signal!r} has no default")
        self.batch_shape = tuple(batch_shape)
        for name, value in zip(_CONSTANTS, (gamma, beta, warmup, target, *bounds), strict=True):
            missing = name == "target" and value is None
            constant = None if missing else as_constant(name, value, batch_shape)
            self.register_buffer(name, constant, persistent=False)
        self.check_constants()
        state = torch.zeros(
            *batch_shape, self._actuator.channels, dtype=state_dtype(), device="cpu"
        )
        self.register_buffer("average", state)
        self.register_buffer("reference", state.clone())
        self.register_buffer("steps", torch.zeros(batch_shape, dtype=torch.long, device="cpu"))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a constant's new value is checked and copied into its buffer."""
        if name not in _CONSTANTS:
            return super().__setattr__(name, value)
        constant = as_constant(name, value, self.batch_shape).detach()
        self._check_constant(name, constant)
        buffer = getattr(self, name)
        return super().__setattr__(name, constant if buffer is None else buffer.copy_(constant))

    def check_constants(self) -> None:
        """Raise a ValueError that names a constant out of its range, as after a change in place."""
        for name in _CONSTANTS:
            self._check_constant(name, getattr(self, name))

    def _check_constant(self, name: str, value: Tensor | None) -> None:
        if value is None:
            return
        good, rule = _CONSTANTS[name]
        fits = good(value)
        if name == "target" and self._actuator.sets_temperature:
            fits &= value < self._signal.target_below
            if math.isfinite(self._signal.target_below):
                rule = f"in (0, {self._signal.target_below:g})"
        if not bool(fits.all()):
            shown: object = value
            if name in ("low", "high"):
                shown = tuple(value if name == side else getattr(self, side) for side in _BOUNDS)
                name = "bounds"
            raise ValueError(f"{name} must be {rule}; it is {shown}")

    @property
    def sets_temperature(self) -> bool:
        """Whether the scheduler sets the temperature, instead of passing on the given one."""
        return self._actuator.sets_temperature

    @property
    def smoothed(self) -> Tensor:
        """(..., C) the moving average, corrected for its start at zero; NaN before the first step.

        C is 2, ``i2t`` then ``t2i``, for ``direction`` and ``sample``; otherwise 1.
        """
        return self.average / (1 - self.beta.unsqueeze(-1) ** self.steps.unsqueeze(-1))

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Take one step: read the signal, update the average, return the schedule.

        In evaluation mode nothing moves, and the schedule is neutral.

        Args:
            similarity: (..., B, B) similarities of the batch, B ≥ 2, with leading axes
                ``batch_shape``.
            temperature: The current temperature, a number or (...); ``entropy`` takes its softmax
                at this temperature, and every actuator but ``sharpness`` returns it.

        Returns:
            The schedule: weights (..., 2), sample weights (..., 2, B), temperature (...).

        Raises:
            ValueError: ``similarity`` has a wrong shape, other leading axes than ``batch_shape``,
                B < 2 or, for a single run on the CPU, numbers that are not finite; or
                ``temperature`` is not positive. The state does not change then.
        """
        self._check_similarity(similarity)
        similarity = similarity.detach()
        neutral = neutral_schedule(similarity, temperature)
        if not self.training:
            return neutral
        return self._advance(self._observe(similarity, neutral), similarity, neutral)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def quick(
        self, similarity: Tensor, temperature: Number, *, check_finite: bool = True
    ) -> Schedule:
        """Take one step as :meth:`forward`, at less cost: the same schedule up to rounding.

        ``variance × direction`` takes the mean variances from sums
        (:func:`lib.schedulers.mean_variances`), in a twenty-fifth of the time at B = 1,024; every
        other scheduler takes the usual step. The study's records were made with :meth:`forward`.

        Args:
            similarity: (..., B, B), as for :meth:`forward`.
            temperature: A number or (...), as for :meth:`forward`.
            check_finite: Whether to refuse numbers that are not finite, as :meth:`forward` does.
                Pass False if the caller has checked already.

        Returns:
            The schedule, as :meth:`forward`.

        Raises:
            ValueError: As :meth:`forward`.

        >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
        >>> Scheduler("variance", "direction").quick(similarity, temperature=0.1).weights
        tensor([1.5455, 0.4545])
        """
        self._check_similarity(similarity, finite=check_finite)
        similarity = similarity.detach()
        neutral = neutral_schedule(similarity, temperature)
        if not self.training:
            return neutral
        if (self.signal_name, self.actuator_name) != ("variance", "direction"):
            return self._advance(self._observe(similarity, neutral), similarity, neutral)
        average = self.average
        if similarity.dim() == 2 and is_readable(similarity) and is_readable(average):
            weights = self._weights_on_host(similarity, average)
            return neutral if weights is None else neutral._replace(weights=weights)
        return self._advance(mean_variances(similarity), similarity, neutral)

    def _check_similarity(self, similarity: Tensor, *, finite: bool = True) -> None:
        check_similarity(similarity, finite=finite)
        if similarity.shape[:-2] != self.average.shape[:-1]:
            raise ValueError(
                f"similarity has leading axes {tuple(similarity.shape[:-2])}, the scheduler was "
                f"made with batch_shape={tuple(self.average.shape[:-1])}"
            )
        follow(self, similarity.device)

    def _observe(self, similarity: Tensor, neutral: Schedule) -> Tensor:
        """Return the values that are smoothed, (..., C)."""
        return self._actuator.observe(self._signal, similarity, neutral.temperature, self.target)

    def _weights_on_host(self, similarity: Tensor, average: Tensor) -> Tensor | None:
        """Take one step of ``variance × direction`` for a single run on the CPU.

        As :meth:`_advance`, with Python's numbers: some thirty operations on tensors of two numbers
        would add a quarter to the loss at B = 128. None means weights of 1; similarities that are
        not finite leave the state as it was.
        """
        i2t, t2i = mean_variances_on_host(similarity)
        if not math.isfinite(i2t + t2i):
            return None
        beta, warmup = self.beta.item(), self.warmup.item()
        if not 0 <= beta < 1:
            self.check_constants()
        steps = self.steps.add_(1).item()
        before, share = average.tolist(), 1 - beta**steps
        i2t, t2i = beta * before[0] + (1 - beta) * i2t, beta * before[1] + (1 - beta) * t2i
        average.copy_(_pair(i2t, t2i, average.dtype))
        if steps <= max(warmup, 1):
            self.reference.copy_(average / share)
        if steps <= warmup:
            return None
        tiny = torch.finfo(average.dtype).tiny
        ratio = math.log(max(i2t / share, tiny)) - math.log(max(t2i / share, tiny))
        # The softmax of two numbers, as in powers().
        difference = math.tanh(self.gamma.item() * ratio / 2)
        return _pair(1 + difference, 1 - difference, similarity.dtype)

    @torch.no_grad()
    def _advance(self, observed: Tensor, similarity: Tensor, neutral: Schedule) -> Schedule:
        """Take one step with the observed values (..., C)."""
        beta = self.beta.unsqueeze(-1)
        finite = observed.isfinite().all(dim=-1)
        self.steps.add_(finite)
        moved = self.average * beta + (1 - beta) * observed
        self.average.copy_(torch.where(finite.unsqueeze(-1), moved, self.average))
        corrected = self.smoothed
        # The reference is the average at the end of the warm-up; without one, the first average.
        opening = (finite & (self.steps <= self.warmup.clamp(min=1))).unsqueeze(-1)
        self.reference.copy_(torch.where(opening, corrected, self.reference))
        acted = self._actuator.act(
            self._signal,
            similarity,
            neutral,
            Smoothed(corrected, self.reference, self.gamma, self.low, self.high),
        )
        warming = (self.steps <= self.warmup) | ~finite
        parts = zip(neutral, acted, strict=True)
        return Schedule(
            *(part if part is new else _select(warming, part, new) for part, new in parts)
        )

    def extra_repr(self) -> str:
        """Name the signal and the actuator in the module's representation."""
        return f"{self.signal_name} × {self.actuator_name}"


def _pair(first: float, second: float, dtype: torch.dtype) -> Tensor:
    # About ten times faster than torch.tensor; half precision becomes single, as elsewhere.
    code, dtype = ("d", dtype) if dtype == torch.float64 else ("f", torch.float32)
    return torch.frombuffer(array(code, (first, second)), dtype=dtype)


def _select(choice: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return ``yes`` or ``no`` (..., and more axes) per run, by ``choice`` (...)."""
    return torch.where(choice[(..., *[None] * (no.dim() - choice.dim()))], yes, no)
