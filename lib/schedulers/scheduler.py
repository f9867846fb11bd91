"""The schedulers as modules: called once a step with the similarities, they return the schedule."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lib.schedulers.actuators import ACTUATORS, Schedule, Smoothed
from lib.schedulers.checks import Number, as_constant, check_similarity, check_temperature
from lib.schedulers.moments import mean_variances
from lib.schedulers.signals import SIGNALS

DEFAULT_TARGETS = {"variance": 1.5, "entropy": 0.8, "spread": 8.0}
"""What ``sharpness`` holds: the logits' standard deviation, their mean normalised entropy, or
their range."""


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
    """The fixed baseline: every weight is 1 and the temperature is the one given."""

    @torch.no_grad()
    def forward(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the neutral schedule for ``similarity`` (..., B, B)."""
        check_similarity(similarity)
        return neutral_schedule(similarity, temperature)

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward


class Scheduler(nn.Module):
    """A signal, smoothed over steps, driving an actuator.

    The signal's moving average is ū ← β ū + (1 − β) u, bias-corrected as in Adam (Kingma and Ba,
    2015, section 3). ``variance × direction`` is our reconstruction of the scheduler of Pillai
    (2025, arXiv 2503.03202); its ``entropy`` and ``spread`` rivals differ in the signal alone.

    Args:
        signal: ``"variance"``, ``"entropy"`` or ``"spread"``.
        actuator: ``"direction"`` (w_d = 2 ū_d^γ / Σ ū^γ), ``"magnitude"``
            (w = clip((ū / ū_0)^γ, low, high) for both directions), ``"sharpness"`` (the temperature
            holds a target) or ``"sample"`` (a_i = B u_i^γ / Σ u^γ for each query).
        gamma: Exponent γ; its sign says whether more of the signal means more weight or less.
        beta: Smoothing β in [0, 1).
        warmup: Steps during which the schedule stays neutral.
        target: What ``sharpness`` holds: the standard deviation (``variance``) or range
            (``spread``) of the logits, or the mean entropy as a fraction of log B (``entropy``).
            Default: :data:`DEFAULT_TARGETS`.
        bounds: Least and greatest weight of ``magnitude``.
        batch_shape: Leading axes of a stack of independent runs; the constants above may then be
            tensors of that shape.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    >>> scheduler = Scheduler("variance", "direction")
    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> scheduler(similarity, temperature=0.1).weights
    tensor([1.5455, 0.4545])
    """

    average: Tensor
    reference: Tensor
    steps: Tensor
    gamma: Tensor
    beta: Tensor
    warmup: Tensor
    target: Tensor
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
        constants: dict[str, Any] = {
            "gamma": gamma,
            "beta": beta,
            "warmup": warmup,
            "target": DEFAULT_TARGETS.get(signal, 1.0) if target is None else target,
            "low": bounds[0],
            "high": bounds[1],
        }
        for name, value in constants.items():
            self.register_buffer(name, as_constant(name, value, batch_shape), persistent=False)
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
            "target": (torch.isfinite(self.target) & (self.target > 0), "positive"),
            "bounds": ((self.low > 0) & (self.low <= 1) & (self.high >= 1), "0 < low ≤ 1 ≤ high"),
        }
        if self.actuator_name == "sharpness" and self.signal_name == "entropy":
            checks["target"] = ((self.target > 0) & (self.target < 1), "in (0, 1)")
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

        Raises:
            ValueError: ``similarity`` has a wrong shape, or B < 2.
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
        (:func:`lib.schedulers.moments.mean_variances`); every other scheduler takes the usual step.
        The study's records were made with :meth:`forward`, whose digits stay as they are.

        Args:
            similarity: As for :meth:`forward`.
            temperature: As for :meth:`forward`.

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
            Smoothed(corrected, self.reference, self.gamma, self.target, self.low, self.high),
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
