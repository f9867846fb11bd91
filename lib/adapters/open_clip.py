"""open_clip: a replacement for ``ClipLoss``, and the library's training program with it.

This module imports open_clip only to run its training program.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from ..losses import ScheduledContrastiveLoss
from ..schedulers import Scheduler

__all__ = ["ScheduledClipLoss", "scheduled_training"]


class ScheduledClipLoss(nn.Module):
    """A replacement for ``open_clip.ClipLoss`` with a scheduler, made and called alike.

    Several processes always gather features with their gradients, as ``ClipLoss`` does with
    ``gather_with_grad=True`` and ``local_loss=False``, so that each has the whole batch's signal.

    With ``--accum-freq`` k, open_clip's loop calls the loss k times per optimiser step, each time
    on the whole batch, of which another chunk has a gradient. The scheduler takes one step: with
    ``accum_freq``, in every k-th call; else in a call whose first chunk has a gradient, or whose
    features are all new.

    Args:
        local_loss: Must be False: a scheduler needs the whole batch's similarities.
        gather_with_grad: Plays no role: gradients are always gathered.
        cache_labels: Plays no role: there are no labels to cache.
        rank: Plays no role: the order of processes comes from ``torch.distributed``.
        world_size: Number of processes.
        use_horovod: Must be False.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        loss: A name in :data:`lib.losses.LOSSES`; ``sigmoid`` replaces ``SigLipLoss``.
        constant: The loss's constant, unless the model has a ``logit_bias``.
        skip_single: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        accum_freq: Calls per optimiser step.

    Raises:
        ValueError: An option is not supported or out of its range; the message names it.

    Source:
        Radford et al. (2021), figure 3, for the loss.

    >>> import torch
    >>> loss_of = ScheduledClipLoss()
    >>> features, scale = torch.eye(4), torch.tensor(10.0)
    >>> sorted(loss_of(features, features, scale, output_dict=True))
    ['contrastive_loss']
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = True,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        scheduler: nn.Module | None = None,
        loss: str = "info_nce",
        constant: float | None = None,
        skip_single: bool = False,
        accum_freq: int | None = None,
    ) -> None:
        super().__init__()
        if local_loss:
            raise ValueError(
                "local_loss must be False: a scheduler reads the similarities of the whole batch"
            )
        if use_horovod:
            raise ValueError("use_horovod must be False: this loss uses torch.distributed")
        if accum_freq is not None and accum_freq < 1:
            raise ValueError(f"accum_freq must be 1 or more; it is {accum_freq}")
        self.loss = ScheduledContrastiveLoss(
            scheduler,
            gather=world_size > 1,
            loss=loss,
            constant=constant,
            skip_single=skip_single,
        )
        self.accum_freq = accum_freq
        self._calls = 0
        self._features: Tensor | None = None

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Return the loss, or ``{"contrastive_loss": loss}`` with ``output_dict``.

        Args:
            image_features: (B, d) of unit length.
            text_features: (B, d) of unit length.
            logit_scale: (), 1 / τ, as open_clip's models return it.
            logit_bias: (), the bias of the loss ``sigmoid``. It does not change a softmax, and has
                the gradient 0 there.
            output_dict: As in open_clip.

        Returns:
            (): the loss, alone or by name.

        Raises:
            ValueError: The features are not a batch of pairs, or a number is not finite.
        """
        if self.training and torch.is_grad_enabled():
            self.loss.advances = self._begins(image_features, text_features)
        loss = self.loss(image_features, text_features, logit_scale, logit_bias=logit_bias)
        return {"contrastive_loss": loss} if output_dict else loss

    def _begins(self, image: Tensor, text: Tensor) -> bool:
        """Return whether a training call is the first of its optimiser step."""
        if self.accum_freq is not None:
            self._calls += 1
            return (self._calls - 1) % self.accum_freq == 0
        before, self._features = self._features, torch.cat([image, text], dim=-1).detach()
        starts = {_starts_with_gradient(features) for features in (image, text)}
        if starts != {None}:
            return True in starts
        # An optimiser step moves all features; between chunks, those of the others stay.
        if before is None or before.shape != self._features.shape:
            return True
        return not bool(before.eq(self._features).all(dim=-1).any())

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.

        @overload
        def __call__(
            self,
            image_features: Tensor,
            text_features: Tensor,
            logit_scale: Tensor,
            logit_bias: Tensor | None = None,
            output_dict: Literal[False] = False,
        ) -> Tensor: ...

        @overload
        def __call__(
            self,
            image_features: Tensor,
            text_features: Tensor,
            logit_scale: Tensor,
            logit_bias: Tensor | None = None,
            *,
            output_dict: Literal[True],
        ) -> dict[str, Tensor]: ...

        def __call__(self, *args: object, **kwargs: object) -> object:
            """Call :meth:`forward`."""


def _starts_with_gradient(features: Tensor) -> bool | None:
    """Return whether the first of the chunks that were joined has a gradient; None if the graph
    does not tell."""
    if features.grad_fn is None or features.grad_fn.name() != "CatBackward0":
        return None
    chunks = [function for function, _ in features.grad_fn.next_functions]
    return None if len(chunks) < 2 else chunks[0] is not None


class _Logged(dict[str, Tensor]):
    """Losses by name, which open_clip's loop sums, and numbers that it only logs."""

    def values(self) -> Any:
        """Return the losses, without the numbers to log."""
        return [self["contrastive_loss"]]


class _LoggingClipLoss(ScheduledClipLoss):
    """A loss whose weights, signals and temperature stand in the training program's log."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss; with ``output_dict``, also what to log."""
        losses = super().forward(*args, **kwargs)
        if isinstance(losses, Tensor):
            return losses
        latest = self.loss.latest()
        return _Logged(losses | {name: torch.tensor(value) for name, value in latest.items()})


@contextmanager
def scheduled_training(scheduler: nn.Module | None = None) -> Iterator[nn.Module]:
    """Let ``open_clip_train.main.main`` train with a scheduled loss.

    The program makes its loss from the name ``create_loss`` of its own module, which is replaced
    here. The scheduler becomes a part of the model, ``model.variance_schedule``: the program's
    checkpoints hold its state, ``--resume`` restores it, and it follows the model to its device.
    Weights, signals and temperature stand in the program's log and on its boards.

    To load such a checkpoint without a scheduler, leave out the names that start with
    ``variance_schedule.``.

    Args:
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.

    Returns:
        A context; within it, the program schedules its loss. Its value is the scheduler.

    Raises:
        ValueError: The program is asked for CoCa, distillation, ``--local-loss`` or Horovod.

    >>> from open_clip_train.main import main
    >>> with scheduled_training(Scheduler("variance", "direction")) as scheduler:
    ...     pass  # main(["--model", "ViT-B-32", "--train-data", "pairs.csv"])
    >>> int(scheduler.steps)
    0
    """
    from open_clip_train import main as program  # type: ignore[import-untyped]

    scheduler = Scheduler() if scheduler is None else scheduler
    create_model = program.create_model_and_transforms

    def create_with_scheduler(*args: Any, **kwargs: Any) -> Any:
        model, *rest = create_model(*args, **kwargs)
        model.variance_schedule = scheduler
        return model, *rest

    def create_loss(args: Any) -> ScheduledClipLoss:
        if args.distill or "coca" in args.model.lower():
            raise ValueError(
                f"{args.model} with a scheduler: neither CoCa nor --distill is possible"
            )
        return _LoggingClipLoss(
            local_loss=args.local_loss,
            world_size=args.world_size,
            use_horovod=args.horovod,
            scheduler=scheduler,
            loss="sigmoid" if args.siglip else "info_nce",
            accum_freq=args.accum_freq,
        )

    replaced = {"create_loss": create_loss, "create_model_and_transforms": create_with_scheduler}
    originals = {name: getattr(program, name) for name in replaced}
    vars(program).update(replaced)
    try:
        yield scheduler
    finally:
        vars(program).update(originals)
