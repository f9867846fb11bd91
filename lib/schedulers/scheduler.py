"""The schedulers as modules: called once a step with the similarities, they return the schedule."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .actuators import ACTUATORS, Schedule, Smoothed
from .checks import Number, as_constant, check_similarity, check_temperature
from .moments import mean_variances
from .signals import SIGNALS


def neutral_schedule(similarity: Tensor, temperature: Number) -> Schedule:
    """Return the schedule that changes nothing, for ``similarity`` (..., B, B)."""
    check_temperature(temperature)
    leading = similarity.shape[:-2]
    ones = torch.ones((), dtype=similarity.dtype, device=similarity.device)
    tau = torch.as_tensor(temperature, dtype=similarity.dtype, device=similarity.device)
    return Schedule(
        weights=ones.expand(*leading, 2),
        sample_weights=ones.expand(*leading, 2, similarity.shape[-1]),
        temperature=tau.detach().expand(leading),
    )


class Fixed(nn.Module):
    """The fixed baseline: every weight is 1 and the temperature is the one given.

    With :class:`lib.losses.ScheduledContrastiveLoss` this is the loss of CLIP.

    Source:
        Radford et al. (2021), figure 3.

    >>> Fixed()(torch.eye(3), temperature=0.1).weights
    tensor([1., 1.])
    """

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the neutral schedule.

        Args:
            similarity: (..., B, B), B ≥ 2.
            temperature: τ > 0, a number or (...).

        Returns:
            The schedule: weights (..., 2) and sample weights (..., 2, B) of 1, temperature (...).

        Raises:
            ValueError: ``similarity`` has a wrong shape, B < 2 or numbers that are not finite; or
                ``temperature`` is not positive.
        """
        check_similarity(similarity)
        return neutral_schedule(similarity, temperature)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward


class Scheduler(nn.Module):
    r"""A signal, smoothed over steps, driving an actuator.

    With u the mean of the signal over a direction's queries and t counted from 1, the moving
    average is corrected for its start at zero:

    .. math::

       m_t = \beta\, m_{t-1} + (1 - \beta)\, u_t , \qquad \bar u_t = m_t / (1 - \beta^t) .

    It turns one of four things. ``direction`` sets the weights of the two directions,
    ``magnitude`` one weight for both, ``sharpness`` the temperature, here for the signal
    ``variance``, and ``sample`` the weight of each query:

    .. math::

       w_d = \frac{2\, \bar u_d^{\,\gamma}}{\bar u_{\text{i2t}}^{\,\gamma}
       + \bar u_{\text{t2i}}^{\,\gamma}} , \qquad
       w = \operatorname{clip}\Bigl( (\bar u / \bar u_0)^{\gamma} \Bigr) , \qquad
       \tau = \bar\sigma / c , \qquad
       a_i = \frac{B\, u_i^{\gamma}}{\sum_k u_k^{\gamma}} .

    ``variance × direction``, the default, is our reconstruction of the paper's scheduler; its
    rivals ``entropy × direction`` and ``spread × direction`` differ in the signal alone. A call is
    a step. ``state_dict`` holds the moving average.

    Args:
        signal: ``"variance"``, ``"entropy"``, ``"spread"`` or another name in
            :data:`lib.schedulers.SIGNALS`.
        actuator: ``"direction"``, ``"magnitude"``, ``"sharpness"`` or ``"sample"``.
        gamma: Exponent γ, a number or of ``batch_shape``; its sign says whether more of the signal
            means more weight or less.
        beta: Smoothing β in [0, 1), a number or of ``batch_shape``.
        warmup: Steps during which the schedule stays neutral, a count or of ``batch_shape``.
        target: c > 0, a number or of ``batch_shape``: what ``sharpness`` holds. It is the standard
            deviation (``variance``) or the range (``spread``) of the logits, or their mean entropy
            as a fraction of log B (``entropy``, below 1). Default: the signal's own.
        bounds: Least and greatest weight of ``magnitude``, around 1.
        batch_shape: Leading axes of a stack of independent runs; the constants above may then be
            tensors of that shape.

    Raises:
        ValueError: An argument is unknown or out of its range; the message names it.

    Source:
        Pillai (2025), reconstructed; the correction is that of Kingma and Ba (2015), section 3.

    >>> scheduler = Scheduler("variance", "direction")
    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> scheduler(similarity, temperature=0.1).weights
    tensor([1.5455, 0.4545])
    >>> int(scheduler.steps)
    1
    """

    average: Tensor
    reference: Tensor
    steps: Tensor
    gamma: Tensor
    beta: Tensor
    warmup: Tensor
    target: Tensor | None
    low: Tensor
    high: Tensor

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
        constants: dict[str, Any] = {
            "gamma": gamma,
            "beta": beta,
            "warmup": warmup,
            "target": target,
            "low": bounds[0],
            "high": bounds[1],
        }
        for name, value in constants.items():
            constant = None if value is None else as_constant(name, value, batch_shape)
            self.register_buffer(name, constant, persistent=False)
        self._check_constants()
        state = torch.zeros(*batch_shape, self._actuator.channels)
        self.register_buffer("average", state)
        self.register_buffer("reference", state.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def _check_constants(self) -> None:
        checks = {
            "gamma": (torch.isfinite(self.gamma), "finite"),
            "beta": ((self.beta >= 0) & (self.beta < 1), "in [0, 1)"),
            "warmup": ((self.warmup >= 0) & (self.warmup == self.warmup.round()), "0 or a count"),
            "bounds": ((self.low > 0) & (self.low <= 1) & (self.high >= 1), "0 < low ≤ 1 ≤ high"),
        }
        if self.target is not None:
            limit = self._signal.target_below if self._actuator.sets_temperature else math.inf
            rule = f"in (0, {limit:g})" if math.isfinite(limit) else "positive"
            checks["target"] = ((self.target > 0) & (self.target < limit), rule)
        for name, (good, rule) in checks.items():
            if not bool(good.all()):
                values = (self.low, self.high) if name == "bounds" else getattr(self, name)
                raise ValueError(f"{name} must be {rule}; it is {values}")

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Take one step: read the signal, update the average, return the schedule.

        Args:
            similarity: (..., B, B) similarities of the batch, B ≥ 2; its leading axes are the
                scheduler's ``batch_shape``.
            temperature: The temperature in force, a number or (...); ``entropy`` reads its softmax
                at it, and every actuator but ``sharpness`` hands it on.

        Returns:
            The schedule: weights (..., 2), sample weights (..., 2, B), temperature (...).

        Raises:
            ValueError: ``similarity`` has a wrong shape, other leading axes than ``batch_shape``,
                B < 2 or, for a single run on the CPU, numbers that are not finite; or
                ``temperature`` is not positive. The state is then as before.
        """
        self._check_similarity(similarity)
        similarity = similarity.detach()
        neutral = neutral_schedule(similarity, temperature)
        return self._advance(self._observe(similarity, neutral), similarity, neutral)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward

    @torch.no_grad()
    def quick(
        self, similarity: Tensor, temperature: Number, *, check_finite: bool = True
    ) -> Schedule:
        """Take one step as :meth:`forward` does, for less: the same schedule up to rounding.

        The mean variances that drive ``variance × direction`` come from sums
        (:func:`lib.schedulers.mean_variances`); every other scheduler takes the usual step.
        The study's records were made with :meth:`forward`, whose digits stay as they are.

        Args:
            similarity: (..., B, B), as for :meth:`forward`.
            temperature: A number or (...), as for :meth:`forward`.
            check_finite: Whether to look for numbers that are not finite, where :meth:`forward`
                would; who has looked already says no.

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
        if self.signal_name == "variance" and self.actuator_name == "direction":
            return self._advance(mean_variances(similarity), similarity, neutral)
        return self._advance(self._observe(similarity, neutral), similarity, neutral)

    def _check_similarity(self, similarity: Tensor, *, finite: bool = True) -> None:
        check_similarity(similarity, finite=finite)
        if similarity.shape[:-2] != self.average.shape[:-1]:
            raise ValueError(
                f"similarity has leading axes {tuple(similarity.shape[:-2])}, the scheduler was "
                f"made with batch_shape={tuple(self.average.shape[:-1])}"
            )

    def _observe(self, similarity: Tensor, neutral: Schedule) -> Tensor:
        """Return what the actuator smooths, (..., C)."""
        return self._actuator.observe(self._signal, similarity, neutral.temperature, self.target)

    def _advance(self, observed: Tensor, similarity: Tensor, neutral: Schedule) -> Schedule:
        """Take one step with what the actuator observed (..., C)."""
        beta = self.beta.unsqueeze(-1)
        self.steps += 1
        self.average.mul_(beta).add_((1 - beta) * observed)
        corrected = self.average / (1 - beta**self.steps)
        # The reference is the average at the warm-up's end, or the first one without a warm-up.
        opening = (self.steps <= self.warmup.clamp(min=1)).unsqueeze(-1)
        self.reference.copy_(torch.where(opening, corrected, self.reference))
        acted = self._actuator.act(
            self._signal,
            similarity,
            neutral,
            Smoothed(corrected, self.reference, self.gamma, self.low, self.high),
        )
        warming = self.steps <= self.warmup
        return Schedule(
            weights=torch.where(warming.unsqueeze(-1), neutral.weights, acted.weights),
            sample_weights=torch.where(
                warming[..., None, None], neutral.sample_weights, acted.sample_weights
            ),
            temperature=torch.where(warming, neutral.temperature, acted.temperature),
        )

    def extra_repr(self) -> str:
        """Name the signal and the actuator in the module's representation."""
        return f"{self.signal_name} × {self.actuator_name}"
