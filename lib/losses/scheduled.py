"""The scheduled loss as one module, from embeddings: two lines in a training loop."""

import math
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ..schedulers.actuators import Schedule
from ..schedulers.checks import Number, check_number, is_traced, refuse_not_finite
from ..schedulers.moments import mean_variances_on_host
from ..schedulers.scheduler import Fixed, Scheduler, neutral_schedule
from ..schedulers.trace import Trace
from .gather import gather_pairs
from .per_query import weighted_mean

SMALLEST = {dtype: torch.finfo(dtype).tiny for dtype in (torch.float32, torch.float64)}
"""What a signal of zero counts as: the same as in :func:`lib.schedulers.actuators.powers`."""


class ScheduledContrastiveLoss(nn.Module):
    """The symmetric InfoNCE loss of a batch of pairs, with a scheduler's weights and temperature.

    A call in training mode is one step of the scheduler. In evaluation mode nothing is scheduled
    and the scheduler's state stays: the loss is the plain one, comparable between epochs.

    ``state_dict`` holds the scheduler's state, which stays in single precision (or double) when the
    module is made half. The module works under ``torch.compile`` (``fullgraph``), autocast and
    ``torch.func.vmap`` (with :func:`torch.func.functional_call` and a state for each run).

    ``variance × direction`` on the CPU takes a way of its own, in as few calls as possible; it
    agrees with the study's formula (:meth:`lib.schedulers.Scheduler.forward`) to rounding.

    Args:
        scheduler: A :class:`lib.schedulers.Scheduler`, or any module that is called as one; the
            default is ``variance × direction``. With :class:`lib.schedulers.Fixed` this is CLIP's
            loss.
        temperature: τ > 0 where a call gives no ``logit_scale``.
        gather: Whether to collect the embeddings of all processes first; see
            :func:`lib.losses.gather_pairs`.
        check_finite: Whether to refuse numbers that are not finite. It reads the loss, which on a
            GPU waits for it; under ``torch.compile`` and ``vmap`` nothing is checked.

    Raises:
        ValueError: ``temperature`` is not positive and finite.

    Source:
        Radford et al. (2021), figure 3, for the loss; Pillai (2025) for its weights.

    >>> from torch.nn.functional import normalize
    >>> draws = torch.Generator().manual_seed(0)
    >>> image, text = normalize(torch.randn(2, 8, 4, generator=draws), dim=-1)
    >>> loss = ScheduledContrastiveLoss(temperature=0.1)
    >>> loss(image, text) > 0, loss.weights.sum()
    (tensor(True), tensor(2.))
    """

    def __init__(
        self,
        scheduler: nn.Module | None = None,
        *,
        temperature: float = 0.1,
        gather: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite; it is {temperature}")
        self.scheduler = Scheduler() if scheduler is None else scheduler
        self.temperature = temperature
        self.gather = gather
        self.check_finite = check_finite
        self._weights: tuple[float, float] | Tensor = (1.0, 1.0)
        self._constants = _direction_constants(self.scheduler)
        self._is_quick = self._constants is not None or type(self.scheduler) is Fixed

    @property
    def weights(self) -> Tensor:
        """(..., 2) the weights of the latest call: ``i2t`` then ``t2i``."""
        return torch.as_tensor(self._weights)

    def forward(
        self, image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Number | None = None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            image_embeddings: (..., B, d), B ≥ 2, of unit length for cosine similarities; leading
                axes are the scheduler's ``batch_shape``.
            text_embeddings: Of the same shape; row i is the caption of image i.
            logit_scale: 1 / τ, a number or (...); it may be learned. A scheduler that sets the
                temperature itself (``sharpness``) takes it as the temperature of its warm-up only.

        Returns:
            (...): one loss a run.

        Raises:
            ValueError: The embeddings' shapes, types or devices don't fit, B < 2, or a number is
                not finite; the message names the argument. The scheduler's state is then as before.
        """
        check_embeddings(image_embeddings, text_embeddings)
        if logit_scale is not None:
            check_number("logit_scale", logit_scale, "1 / τ, positive and finite", _is_positive)
        if self.gather:
            image_embeddings, text_embeddings = gather_pairs(image_embeddings, text_embeddings)
        similarity = image_embeddings @ text_embeddings.mT
        if similarity.dtype in (torch.float16, torch.bfloat16):
            similarity = similarity.float()
        scale = 1 / self.temperature if logit_scale is None else logit_scale
        traced = is_traced(similarity)
        on_host = self._is_quick and not traced and similarity.device.type == "cpu"
        if on_host and self.training and similarity.dim() == 2:
            loss = self._quick_loss(similarity, scale)
        else:
            readable = self.training and self.check_finite and not traced
            if readable and not bool(similarity.detach().sum().isfinite()):
                self._refuse(image_embeddings, text_embeddings, scale)
            loss = self._loss(similarity, scale)
        if self.check_finite and not traced and not _is_finite(loss):
            self._refuse(image_embeddings, text_embeddings, scale)
        return loss

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward

    def _loss(self, similarity: Tensor, scale: Number) -> Tensor:
        """Take a step of any scheduler, anywhere."""
        if not self.training:
            schedule, logits = neutral_schedule(similarity, 1.0), _scaled(similarity, scale)
        else:
            schedule = self._step(similarity, 1 / _detached(scale))
            own = _sets_temperature(self.scheduler)
            logits = _scaled(similarity, 1 / schedule.temperature if own else scale)
            self._weights = schedule.weights
        losses = [-torch.log_softmax(logits, dim).diagonal(0, -2, -1) for dim in (-1, -2)]
        return weighted_mean(torch.stack(losses, dim=-2), schedule).to(logits.dtype)

    def _step(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the scheduler's schedule; the numbers have been looked at, or shall not be."""
        scheduler = self.scheduler
        if isinstance(scheduler, Scheduler):
            return scheduler.quick(similarity, temperature, check_finite=False)
        if isinstance(scheduler, Fixed):
            return neutral_schedule(similarity, temperature)
        schedule: Schedule = scheduler(similarity, temperature)
        return schedule

    def _quick_loss(self, similarity: Tensor, scale: Number) -> Tensor:
        """Take a step of ``variance × direction``, or of no scheduler, on the CPU."""
        i2t, t2i = self._weights = self._quick_weights(similarity.detach())
        logits = similarity * scale
        by_row = torch.log_softmax(logits, 1).diagonal()
        by_column = torch.log_softmax(logits, 0).diagonal()
        # Numbers as factors: no tensor is made for a weight.
        return torch.add(by_row * (-i2t / 2), by_column, alpha=-t2i / 2).mean()

    def _quick_weights(self, similarity: Tensor) -> tuple[float, float]:
        constants = self._constants
        if constants is None:
            return 1.0, 1.0
        i2t, t2i = mean_variances_on_host(similarity)
        if not math.isfinite(i2t + t2i):
            return 1.0, 1.0  # The loss is not finite either, and is refused.
        gamma, beta, warmup = constants
        # Of some twenty microseconds at B = 128, an attribute of a module takes almost one.
        state: dict[str, Any] = self._modules["scheduler"]._buffers  # type: ignore[union-attr]
        average, steps = state["average"], state["steps"]
        now = int(steps.item()) + 1
        i2t_before, t2i_before = average.tolist()
        i2t = beta * i2t_before + (1 - beta) * i2t
        t2i = beta * t2i_before + (1 - beta) * t2i
        # Far quicker than torch.tensor, and the arithmetic above is in double precision.
        average.copy_(torch.frombuffer(array("d", (i2t, t2i)), dtype=torch.float64))
        steps.fill_(now)
        corrected = 1 - beta**now
        if now <= max(warmup, 1):
            state["reference"].copy_(average / corrected)
        if now <= warmup:
            return 1.0, 1.0
        tiny = SMALLEST[average.dtype]
        i2t, t2i = max(i2t / corrected, tiny), max(t2i / corrected, tiny)
        # A difference of the weights' logarithms, so that no exponent overflows.
        weight = 1 + math.tanh(gamma * (math.log(i2t) - math.log(t2i)) / 2)
        return weight, 2 - weight

    def _refuse(self, image: Tensor, text: Tensor, scale: Number) -> NoReturn:
        named = {"image_embeddings": image, "text_embeddings": text, "logit_scale": scale}
        for name, value in named.items():
            refuse_not_finite(name, value)
        raise ValueError(
            "the loss is not finite though its arguments are: embeddings of unit length and a "
            f"smaller logit_scale don't overflow; it is {scale}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A moving average in half precision would stop moving.
        for module in self.scheduler.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.dtype in (torch.float16, torch.bfloat16):
                    module._buffers[name] = buffer.float()
        return self


def check_embeddings(image_embeddings: Tensor, text_embeddings: Tensor) -> None:
    """Refuse embeddings that are no batch of pairs.

    Raises:
        ValueError: They are not of one shape (..., B, d) with B ≥ 2, not of floats, or not on one
            device; the message names the argument.

    >>> check_embeddings(torch.ones(1, 3), torch.ones(1, 3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: image_embeddings holds 1 pairs: without negatives ... use drop_last
    """
    image, text = tuple(image_embeddings.shape), tuple(text_embeddings.shape)
    if len(image) < 2:
        raise ValueError(f"image_embeddings must be (..., B, d); its shape is {image}")
    if image != text:
        raise ValueError(
            "text_embeddings must be (..., B, d) as image_embeddings, row i the caption of image "
            f"i; their shapes are {text} and {image}"
        )
    if image[-2] < 2:
        raise ValueError(
            f"image_embeddings holds {image[-2]} pairs: without negatives the loss is constant; "
            "use drop_last"
        )
    if not (image_embeddings.is_floating_point() and text_embeddings.is_floating_point()):
        raise ValueError(
            "image_embeddings and text_embeddings must be real floats; they are "
            f"{image_embeddings.dtype} and {text_embeddings.dtype}"
        )
    if image_embeddings.device != text_embeddings.device:
        raise ValueError(
            f"text_embeddings is on {text_embeddings.device}, but image_embeddings is on "
            f"{image_embeddings.device}"
        )


def _is_finite(loss: Tensor) -> bool:
    # To read one number is several times quicker than to look at it where it is.
    return bool(loss.detach().isfinite().all()) if loss.dim() else math.isfinite(loss.item())


def _is_positive(number: float) -> bool:
    return number > 0


def _scaled(similarity: Tensor, scale: Number) -> Tensor:
    return similarity * (scale[..., None, None] if isinstance(scale, Tensor) else scale)


def _detached(number: Number) -> Number:
    return number.detach() if isinstance(number, Tensor) else number


def _sets_temperature(scheduler: nn.Module) -> bool:
    """Say whether the temperature is the scheduler's, not the given one, which may be learned."""
    if isinstance(scheduler, Scheduler):
        return scheduler.actuator_name == "sharpness"
    if isinstance(scheduler, Trace):
        return scheduler.temperature is not None
    return not isinstance(scheduler, Fixed)


def _direction_constants(scheduler: nn.Module) -> tuple[float, float, int] | None:
    """Return γ, β and the warm-up of a ``variance × direction`` for one run, as numbers."""
    if type(scheduler) is not Scheduler or scheduler.average.shape != (2,):
        return None
    if (scheduler.signal_name, scheduler.actuator_name) != ("variance", "direction"):
        return None
    return float(scheduler.gamma), float(scheduler.beta), int(scheduler.warmup)
