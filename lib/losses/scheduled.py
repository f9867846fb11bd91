"""The scheduled loss as one module, from embeddings: two lines in a training loop."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ..schedulers._checks import (
    Number,
    check_is_tensor,
    check_number,
    check_temperature,
    fitted,
    is_readable,
    is_tiny_float,
    is_traced,
    is_transformed,
    refuse_not_finite,
)
from ..schedulers._state import State, copy_state, follow, in_single, put_back
from ..schedulers.actuators import Schedule
from ..schedulers.scheduler import Fixed, Scheduler, neutral_schedule
from .gather import gather_groups, gather_pairs
from .per_query import LOSSES, as_group, weighted_mean


class ScheduledContrastiveLoss(nn.Module):
    """A contrastive loss of a batch of pairs, with a scheduler's weights and temperature.

    The scheduler takes a step in a call if the module is in training mode, gradients are enabled,
    ``advances`` is True and the numbers are finite. In evaluation mode and under ``torch.no_grad``,
    the loss is the plain one, comparable between epochs, and nothing moves. A batch that is refused
    or skipped moves nothing either.

    If an optimiser step adds the gradients of k calls, of micro-batches, set ``advances`` to False
    for all of them but the first: ``loss.advances = i % k == 0``. Each of them has the schedule of
    a step from the same state; only the first one's signal is kept.

    ``state_dict`` holds the scheduler's state, which stays in single precision (or double) if the
    module is converted to half precision, and follows the embeddings to their device. The module
    works under ``torch.compile`` (``fullgraph``), autocast and ``torch.func.vmap`` (with
    :func:`torch.func.functional_call` and one state per run).

    Constants and state belong to the scheduler, and every call reads them: assign to
    ``loss.scheduler.gamma`` or to ``loss.scheduler`` at any time. The loss calls
    :meth:`lib.schedulers.Scheduler.quick`, or any other module's ``forward``.

    Args:
        scheduler: A :class:`lib.schedulers.Scheduler`, or any module that is called alike and keeps
            its state in buffers; the default is ``variance × direction``, and
            :class:`lib.schedulers.Fixed` gives CLIP's loss. If its attribute ``sets_temperature``
            is True, its temperature replaces 1 / ``logit_scale``; if it is False, ``logit_scale``
            stays; without the attribute, a temperature that differs from the given one rescales it.
        temperature: τ > 0 of calls without ``logit_scale``.
        gather: Whether to collect the embeddings of all processes first, by
            :func:`lib.losses.gather_pairs`.
        check_finite: Whether to refuse numbers that are not finite. This reads the loss, so that a
            step waits for a GPU; under ``torch.compile`` and ``vmap`` nothing is checked.
        loss: A name in :data:`lib.losses.LOSSES`.
        constant: The loss's constant; default: that of its paper.
        skip_single: Whether a batch of one pair, which has no negatives, has the loss 0 and moves
            nothing, instead of being refused.

    Raises:
        ValueError: ``temperature`` is not positive and finite, ``loss`` is unknown, or ``constant``
            is out of its range.

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
        loss: str = "info_nce",
        constant: float | None = None,
        skip_single: bool = False,
    ) -> None:
        super().__init__()
        check_temperature(temperature, ())
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r} is unknown; the losses are {', '.join(LOSSES)}")
        LOSSES[loss].check(constant)
        scheduler = Scheduler() if scheduler is None else scheduler
        check_scheduler(scheduler)
        self.scheduler = scheduler
        self.temperature = temperature
        self.gather = gather
        self.check_finite = check_finite
        self.loss_name, self.constant = loss, constant
        self.skip_single = skip_single
        self.advances = True
        self._latest: Schedule | None = None
        # The scheduler of the latest step, and its state before that step.
        self._before: tuple[nn.Module, State] | None = None

    @property
    def weights(self) -> Tensor:
        """(..., 2) the weights of the latest step: ``i2t`` then ``t2i``."""
        return torch.ones(2) if self._latest is None else self._latest.weights

    def latest(self) -> dict[str, float]:
        """Return what to log of the latest step of a single run.

        Returns:
            ``weight/i2t``, ``weight/t2i`` and ``temperature``; for a
            :class:`lib.schedulers.Scheduler` also its smoothed signal: ``signal/i2t`` and
            ``signal/t2i``, or ``signal`` if the actuator smooths one number. Nothing before the
            first step.

        Raises:
            ValueError: The loss is that of a stack of runs.

        >>> loss = ScheduledContrastiveLoss()
        >>> _ = loss(torch.eye(2), torch.eye(2))
        >>> loss.latest()["signal/i2t"], loss.latest()["weight/t2i"]
        (0.25, 1.0)
        """
        if self._latest is None:
            return {}
        if self._latest.weights.dim() > 1:
            raise ValueError("latest is of a single run; of a stack, read weights and scheduler")
        i2t, t2i = self._latest.weights.tolist()
        values = {"weight/i2t": i2t, "weight/t2i": t2i}
        if isinstance(self.scheduler, Scheduler) and int(self.scheduler.steps):
            signal = self.scheduler.smoothed.tolist()
            names = ["signal"] if len(signal) == 1 else ["signal/i2t", "signal/t2i"]
            values |= dict(zip(names, signal, strict=True))
        return values | {"temperature": self._latest.temperature.item()}

    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        logit_scale: Number | None = None,
        *,
        logit_bias: Number | None = None,
        group: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            image_embeddings: (..., B, d), B ≥ 2, of unit length for cosine similarities, with the
                scheduler's ``batch_shape`` as leading axes.
            text_embeddings: (..., B, d); row i is the caption of image i. For a single run also
                (B, K, d): K captions per image.
            logit_scale: 1 / τ, a number or (...); it may be learned. A scheduler that sets the
                temperature (``sharpness``) uses ``logit_scale`` only during its warm-up.
            logit_bias: A number or (): SigLIP's bias, for the loss ``sigmoid``. Other losses have
                no use for a constant on every logit, and its gradient is 0.
            group: (..., B), or (B,) for all runs: the image of each row, as an integer. Rows of one
                image match each other, and ``info_nce`` becomes ``multi_positive``.

        Returns:
            (...): one loss per run.

        Raises:
            ValueError: Shapes or devices do not match, B < 2, or a number is not finite; the
                message names the argument. The scheduler's state does not change.
        """
        check_embeddings(image_embeddings, text_embeddings)
        if group is not None:
            group = as_group(group, image_embeddings.shape[:-1])
        image, text, group, images = self._rows(image_embeddings, text_embeddings, group)
        if images < 2 and not self.skip_single:
            raise ValueError(
                f"image_embeddings holds {images} pairs: without negatives the loss is constant; "
                "use drop_last, or skip_single=True"
            )
        similarity = image @ text.mT
        if similarity.dtype in (torch.float16, torch.bfloat16):
            similarity = similarity.float()
        scale = self._scale(logit_scale, similarity)
        bias = None if logit_bias is None else _fitted("logit_bias", logit_bias, similarity)
        checked = self.check_finite and not is_traced(similarity)
        if images < 2:
            zero = _connected(0 * scale * similarity.sum(dim=(-2, -1)), bias)
            if checked and not _is_finite(zero):
                _refuse(image, text, scale, self.scheduler)
            return zero
        unused: Number | None = None
        tau = 1 / _number(scale)
        scheduler = self.scheduler
        check_scheduler(scheduler)
        given = image, text, scale, scheduler
        steps = self.training and torch.is_grad_enabled()
        if not steps or type(scheduler) is Fixed:
            schedule = neutral_schedule(similarity, tau)
        else:
            if checked and type(scheduler) is not Scheduler and not _is_finite(similarity.sum()):
                _refuse(*given)
            schedule = self._take_step(similarity, tau)
            sets_temperature = getattr(scheduler, "sets_temperature", None)
            if sets_temperature is None:
                scale = scale * (tau / schedule.temperature)
            elif sets_temperature:
                unused = scale
                scale = 1 / schedule.temperature
        loss = self._weighted(similarity, scale, schedule, bias, group)
        loss = _connected(loss, unused)
        if checked and not (_is_finite(loss) and _is_positive(given[2])):
            if steps and self.advances and self._before and self._before[0] is scheduler:
                put_back(*self._before)
            if group is not None and bool((group == group[..., :1]).all()):
                raise ValueError("group has one group only: there are no negatives")
            _refuse(*given)
        if steps and not is_transformed(similarity):
            self._latest = Schedule(*(part.detach() for part in schedule))
        return loss

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def _rows(
        self, image: Tensor, text: Tensor, group: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Return images, captions and groups row by row, of one type and of all processes, and the
        number of images."""
        dtype = torch.promote_types(image.dtype, text.dtype)
        image, text = image.to(dtype), text.to(dtype)
        group = None if group is None else group.to(image.device)
        captions = text.shape[-2] if text.dim() > image.dim() else 0
        if captions:
            image, text = image.repeat_interleave(captions, dim=0), text.flatten(0, 1)
            group = None if group is None else group.repeat_interleave(captions)
        if self.gather:
            image, text = gather_pairs(image, text)
            group = None if group is None else gather_groups(group)
        images = image.shape[-2] // max(captions, 1)
        if captions and group is None:
            group = torch.arange(images, device=image.device).repeat_interleave(captions)
        return image, text, group, images

    def _scale(self, logit_scale: Number | None, similarity: Tensor) -> Number:
        """Return 1 / τ: a number, or a tensor (...) on the device of the similarities."""
        scale = 1 / self.temperature if logit_scale is None else logit_scale
        scale = _fitted("logit_scale", scale, similarity)
        check_number("logit_scale", scale, "1 / τ, positive and finite", lambda value: value > 0)
        return scale

    def _take_step(self, similarity: Tensor, temperature: Number) -> Schedule:
        """Return the schedule of this call, for checked similarities."""
        scheduler = self.scheduler
        follow(scheduler, similarity.device)
        now = copy_state(scheduler)
        if not self.advances and self._before is not None and self._before[0] is scheduler:
            put_back(scheduler, self._before[1])
        schedule: Schedule
        if type(scheduler) is Scheduler:
            schedule = scheduler.quick(similarity, temperature, check_finite=False)
        else:
            # A module of one's own need not know the rule for numbers that are not finite.
            finite = similarity.detach().sum(dim=(-2, -1)).isfinite()
            known = similarity.where(finite[..., None, None], 0)
            schedule = as_schedule(scheduler(known, temperature), similarity)
            put_back(scheduler, now, where=~finite)
        if not self.advances:
            put_back(scheduler, now)
        elif not is_transformed(similarity):
            self._before = scheduler, now
        return schedule

    def _weighted(
        self,
        similarity: Tensor,
        scale: Number,
        schedule: Schedule,
        bias: Number | None,
        group: Tensor | None,
    ) -> Tensor:
        """Return the weighted mean of the queries' losses, (...)."""
        name = self.loss_name
        constant: Number | None = self.constant
        if name == "info_nce" and group is not None:
            name = "multi_positive"
        if name != "info_nce":
            if name == "sigmoid" and bias is not None:
                constant, bias = bias, None
            if group is not None and group.dim() > 1:
                group = group[None]
            # A stack of one, in which numbers are not checked: this module does that.
            losses = LOSSES[name](similarity[None], 1 / scale, constant, group=group)[0]
            # Not every loss divides by the temperature.
            return _connected(_connected(weighted_mean(losses, schedule), bias), scale)
        if isinstance(scale, Tensor) and scale.dim():
            scale = scale[..., None, None]
        logits = similarity * scale
        # weighted_mean(info_nce(...)) in fewer operations, which saves a quarter at B = 128.
        log_p = torch.stack([logits.log_softmax(dim).diagonal(0, -2, -1) for dim in (-1, -2)], -2)
        weights = -schedule.weights.unsqueeze(-1) * schedule.sample_weights
        loss = (weights * log_p).mean(dim=(-2, -1)).to(logits.dtype)
        return _connected(loss, bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(in_single(fn) if child is self.scheduler else fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call]


def check_embeddings(image_embeddings: Tensor, text_embeddings: Tensor) -> None:
    """Raise a ValueError if embeddings are not (..., B, d) both, or (B, d) and (B, K, d), of floats
    on one device."""
    both = image_embeddings, text_embeddings
    for name, embeddings in zip(("image_embeddings", "text_embeddings"), both, strict=True):
        check_is_tensor(name, embeddings)
    image, text = tuple(image_embeddings.shape), tuple(text_embeddings.shape)
    if len(image) < 2:
        raise ValueError(f"image_embeddings must be (..., B, d); its shape is {image}")
    several = len(image) == 2 and len(text) == 3 and text[1] > 0 and (text[0], text[2]) == image
    if image != text and not several:
        raise ValueError(
            "text_embeddings must be (..., B, d) like image_embeddings, row i the caption of image "
            f"i, or (B, K, d), K captions per image; their shapes are {text} and {image}"
        )
    if not all(e.is_floating_point() and not is_tiny_float(e) for e in both):
        raise ValueError(
            "image_embeddings and text_embeddings must be real floats; they are "
            f"{image_embeddings.dtype} and {text_embeddings.dtype}"
        )
    if image_embeddings.device != text_embeddings.device:
        raise ValueError(
            f"text_embeddings is on {text_embeddings.device}, but image_embeddings is on "
            f"{image_embeddings.device}"
        )


def as_schedule(returned: Any, similarity: Tensor) -> Schedule:
    """Return what a scheduler of one's own returned, as tensors of a schedule's shapes.

    Raises:
        ValueError: It is no schedule of ``similarity`` (..., B, B).
    """
    leading, size = similarity.shape[:-2], similarity.shape[-1]
    shapes = (*leading, 2), (*leading, 2, size), leading
    if not isinstance(returned, tuple) or len(returned) != len(shapes):
        raise ValueError(
            "scheduler must return a Schedule, weights, sample weights and temperature; it "
            f"returned {type(returned)}"
        )
    parts = []
    for name, value, shape in zip(Schedule._fields, returned, shapes, strict=True):
        try:
            parts.append(torch.as_tensor(value, device=similarity.device).expand(shape))
        except (TypeError, ValueError, RuntimeError):
            found = tuple(value.shape) if isinstance(value, Tensor) else value
            raise ValueError(
                f"scheduler must return {name} of shape {tuple(shape)}; it returned {found}"
            ) from None
    return Schedule(*parts)


def check_loss(loss: object) -> None:
    """Raise a ValueError if a trainer's loss is no :class:`ScheduledContrastiveLoss`."""
    if not isinstance(loss, ScheduledContrastiveLoss):
        raise ValueError(
            "loss must be a ScheduledContrastiveLoss, or the attribute loss of one of the losses "
            f"in lib.adapters; it is of {type(loss)}"
        )


def check_scheduler(scheduler: object) -> None:
    """Raise a ValueError if ``scheduler`` is not a module."""
    if not isinstance(scheduler, nn.Module):
        raise ValueError(
            "scheduler must be a module, such as Scheduler() or Fixed(), which is CLIP's loss; it "
            f"is {scheduler!r}"
        )


def _fitted(name: str, value: Number, similarity: Tensor) -> Number:
    """Return a number, or a tensor (...) on the device of the similarities (..., B, B) and no less
    precise."""
    value = fitted(name, value, similarity.shape[:-2])
    if not isinstance(value, Tensor):
        return value
    return value.to(similarity.device, torch.promote_types(value.dtype, similarity.dtype))


def _is_finite(loss: Tensor) -> bool:
    # For one number, math.isfinite is several times faster than Tensor.isfinite.
    return bool(loss.detach().isfinite().all()) if loss.dim() else math.isfinite(loss.item())


def _is_positive(scale: Number) -> bool:
    """Return whether a scale that :func:`check_number` does not read is positive."""
    if not isinstance(scale, Tensor) or (is_readable(scale) and not scale.dim()):
        return True
    return bool((scale > 0).all())


def _connected(loss: Tensor, unused: Number | None) -> Tensor:
    """Return a loss (...) whose graph holds a parameter (...) that it may not use: data-parallel
    training waits for the gradient of every parameter."""
    if isinstance(unused, Tensor) and unused.requires_grad:
        return loss + 0 * unused.to(loss.dtype)
    return loss


def _number(scale: Number) -> Number:
    """Return a scale without its graph, as a number if it can be read: that makes 1 / τ cheaper."""
    if not isinstance(scale, Tensor):
        return scale
    return scale.detach() if scale.dim() or not is_readable(scale) else scale.item()


def _refuse(image: Tensor, text: Tensor, scale: Number, scheduler: nn.Module) -> NoReturn:
    named = {"image_embeddings": image, "text_embeddings": text, "logit_scale": scale}
    for name, value in named.items():
        refuse_not_finite(name, value)
    if not _is_positive(scale):
        raise ValueError(f"logit_scale must be 1 / τ, positive and finite; it is {scale}")
    if isinstance(scheduler, Scheduler):
        scheduler.check_constants()
    raise ValueError(
        "the loss is not finite though its arguments are: embeddings of unit length and a "
        f"smaller logit_scale avoid the overflow; it is {scale}"
    )
