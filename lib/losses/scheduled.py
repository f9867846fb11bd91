"""The scheduled loss as one module, from embeddings: two lines in a training loop."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ..schedulers._checks import Number, check_number, is_readable, is_traced, refuse_not_finite
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import Fixed, Scheduler, in_single, neutral_schedule
from .gather import gather_pairs


class ScheduledContrastiveLoss(nn.Module):
    """The symmetric InfoNCE loss of a batch of pairs, with a scheduler's weights and temperature.

    A call in training mode is one step of the scheduler. In evaluation mode nothing is scheduled
    and the scheduler's state stays: the loss is the plain one, comparable between epochs.

    ``state_dict`` holds the scheduler's state, which stays in single precision (or double) when the
    module is made half. The module works under ``torch.compile`` (``fullgraph``), autocast and
    ``torch.func.vmap`` (with :func:`torch.func.functional_call` and a state for each run).

    The scheduler alone holds its constants and its state, and every call asks it anew: assign to
    ``loss.scheduler.gamma`` or to ``loss.scheduler`` at any time. The loss calls
    :meth:`lib.schedulers.Scheduler.quick`, and any other module as it is.

    Args:
        scheduler: A :class:`lib.schedulers.Scheduler`, or any module that is called as one; the
            default is ``variance × direction``. With :class:`lib.schedulers.Fixed` this is CLIP's
            loss. A module whose attribute ``sets_temperature`` is False leaves the temperature to
            ``logit_scale``.
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
        self._weights = torch.ones(2)

    @property
    def weights(self) -> Tensor:
        """(..., 2) the weights of the latest call: ``i2t`` then ``t2i``."""
        return self._weights

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
        given = image_embeddings, text_embeddings, scale
        checked = self.check_finite and not is_traced(similarity)
        if checked and self.training and not _is_finite(similarity.detach().sum()):
            _refuse(*given)
        schedule = self._schedule(similarity, 1 / _number(scale))
        if self.training:
            self._weights = schedule.weights
            if getattr(self.scheduler, "sets_temperature", True):
                scale = 1 / schedule.temperature
        if isinstance(scale, Tensor) and scale.dim():
            scale = scale[..., None, None]
        logits = similarity * scale
        # weighted_mean(info_nce(...)) in fewer operations: they would add a third at B = 128.
        log_p = torch.stack([logits.log_softmax(dim).diagonal(0, -2, -1) for dim in (-1, -2)], -2)
        weights = -schedule.weights.unsqueeze(-1) * schedule.sample_weights
        loss = (weights * log_p).mean(dim=(-2, -1)).to(logits.dtype)
        if checked and not _is_finite(loss):
            _refuse(*given)
        return loss

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward

    def _schedule(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule of this call; the similarities have been checked."""
        scheduler = self.scheduler
        if not self.training or isinstance(scheduler, Fixed):
            return neutral_schedule(similarity, temperature)
        if type(scheduler) is Scheduler:
            return scheduler.quick(similarity, temperature, check_finite=False)
        schedule: Schedule = scheduler(similarity, temperature)
        return schedule

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(in_single(fn) if child is self.scheduler else fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call]


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


def _number(scale: Number) -> Number:
    """Return a scale without its graph; a number where it can be read, which is cheaper."""
    if not isinstance(scale, Tensor):
        return scale
    return scale.detach() if scale.dim() or not is_readable(scale) else scale.item()


def _refuse(image: Tensor, text: Tensor, scale: Number) -> NoReturn:
    named = {"image_embeddings": image, "text_embeddings": text, "logit_scale": scale}
    for name, value in named.items():
        refuse_not_finite(name, value)
    raise ValueError(
        "the loss is not finite though its arguments are: embeddings of unit length and a "
        f"smaller logit_scale don't overflow; it is {scale}"
    )
