"""accelerate: the scheduled loss in a loop with an ``Accelerator``."""

from typing import Any

import torch
from accelerate import Accelerator

from ..losses import ScheduledContrastiveLoss
from ..losses.scheduled import check_loss

__all__ = ["prepare_loss"]


def prepare_loss(
    accelerator: Accelerator, loss: ScheduledContrastiveLoss
) -> ScheduledContrastiveLoss:
    """Let a loss follow an accelerator: its steps, its device and its checkpoints.

    Under ``with accelerator.accumulate(model)``, the scheduler takes one step per optimiser step,
    with the first micro-batch. ``accelerator.save_state`` and ``load_state`` hold the scheduler's
    state. With several processes, make the loss with ``gather=True``. Log ``loss.latest()`` by
    ``accelerator.log``.

    Args:
        accelerator: The loop's ``Accelerator``.
        loss: The loss; it is called once per micro-batch.

    Returns:
        The same loss.

    Raises:
        ValueError: ``loss`` is another loss.

    >>> loss_of = prepare_loss(Accelerator(cpu=True), ScheduledContrastiveLoss())
    >>> loss_of(torch.eye(2), torch.eye(2)) > 0
    tensor(True)
    """
    check_loss(loss)
    accelerator.register_for_checkpointing(loss)
    loss.register_forward_pre_hook(_Steps(accelerator))
    return loss.to(accelerator.device)


class _Steps:
    """Before each training call, tell the loss whether an optimiser step has come between."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._begins = True

    def __call__(self, loss: ScheduledContrastiveLoss, inputs: tuple[Any, ...]) -> None:
        if loss.training and torch.is_grad_enabled():
            loss.advances = self._begins
            self._begins = bool(self._accelerator.sync_gradients)
