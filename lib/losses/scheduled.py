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

    Each call in training mode is one step of the scheduler. In evaluation mode the loss is the
    plain one, comparable between epochs, and the scheduler's state does not change.

    ``state_dict`` holds the scheduler's state, which stays in single precision (or double) if the
    module is converted to half precision. The module works under ``torch.compile``
    (``fullgraph``), autocast and ``torch.func.vmap`` (with :func:`torch.func.functional_call` and
    one state per run).

    Constants and state belong to the scheduler, and every call reads them: assign to
    ``loss.scheduler.gamma`` or to ``loss.scheduler`` at any time. The loss calls
    :meth:`lib.schedulers.Scheduler.quick`, or any other module's ``forward``.

    Args:
        scheduler: A :class:`lib.schedulers.Scheduler`, or any module that is called alike; the
            default is ``variance × direction``, and :class:`lib.schedulers.Fixed` gives CLIP's
            loss. If its attribute ``sets_temperature`` is False, ``logit_scale`` sets the
            temperature.
        temperature: τ > 0 of calls without ``logit_scale``.
        gather: Whether to collect the embeddings of all processes first, by
            :func:`lib.losses.gather_pairs`.
        check_finite: Whether to refuse numbers that are not finite. This reads the loss, so that a
            step waits for a GPU; under ``torch.compile`` and ``vmap`` nothing is checked.

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
        """(..., 2) the weights of the latest call in training mode: ``i2t`` then ``t2i``."""
        return self._weights

    def forward(
        self, image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Number | None = None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            image_embeddings: (..., B, d), B ≥ 2, of unit length for cosine similarities, with the
                scheduler's ``batch_shape`` as leading axes.
            text_embeddings: (..., B, d); row i is the caption of image i.
            logit_scale: 1 / τ, a number or (...); it may be learned. A scheduler that sets the
                temperature (``sharpness``) uses ``logit_scale`` only during its warm-up.

        Returns:
            (...): one loss per run.

        Raises:
            ValueError: The embeddings' shapes, types or devices do not match, B < 2, or a number is
                not finite; the message names the argument. The scheduler's state does not change.
        """
        check_embeddings(image_embeddings, text_embeddings)
        if logit_scale is not None:
            check_number("logit_scale", logit_scale, "1 / τ, positive and finite", lambda s: s > 0)
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
        # weighted_mean(info_nce(...)) in fewer operations, which saves a quarter at B = 128.
        log_p = torch.stack([logits.log_softmax(dim).diagonal(0, -2, -1) for dim in (-1, -2)], -2)
        weights = -schedule.weights.unsqueeze(-1) * schedule.sample_weights
        loss = (weights * log_p).mean(dim=(-2, -1)).to(logits.dtype)
        if checked and not _is_finite(loss):
            _refuse(*given)
        return loss

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def _schedule(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule of this call, for checked similarities."""
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
    """Raise a ValueError if embeddings are not (..., B, d) both, B ≥ 2, of floats on one device."""
    image, text = tuple(image_embeddings.shape), tuple(text_embeddings.shape)
    if len(image) < 2:
        raise ValueError(f"image_embeddings must be (..., B, d); its shape is {image}")
    if image != text:
        raise ValueError(
            "text_embeddings must be (..., B, d) like image_embeddings, row i the caption of image "
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
    # For one number, math.isfinite is several times faster than Tensor.isfinite.
    return bool(loss.detach().isfinite().all()) if loss.dim() else math.isfinite(loss.item())


def _number(scale: Number) -> Number:
    """Return a scale without its graph, as a number if it can be read: that makes 1 / τ cheaper."""
    if not isinstance(scale, Tensor):
        return scale
    return scale.detach() if scale.dim() or not is_readable(scale) else scale.item()


def _refuse(image: Tensor, text: Tensor, scale: Number) -> NoReturn:
    named = {"image_embeddings": image, "text_embeddings": text, "logit_scale": scale}
    for name, value in named.items():
        refuse_not_finite(name, value)
    raise ValueError(
        "the loss is not finite though its arguments are: embeddings of unit length and a "
        f"smaller logit_scale avoid the overflow; it is {scale}"
    )
