"""Lightning: log a scheduled loss's weights, and keep its state in the checkpoints."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ..losses import ScheduledContrastiveLoss

__all__ = ["SchedulerCallback"]


class SchedulerCallback(Callback):  # type: ignore[misc]
    """Log the weights of a scheduled loss after each training step.

    They are ``weight/i2t`` and ``weight/t2i``.

    A loss that is an attribute of the module travels in its ``state_dict`` already. One that is
    not (a loss of the data module, a function's closure) keeps its state in the checkpoint through
    this callback, and moves to the module's device with it.

    Args:
        loss: The loss that the module's training step calls.

    >>> callback = SchedulerCallback(ScheduledContrastiveLoss())
    >>> sorted(callback.state_dict())[:2]
    ['scheduler.average', 'scheduler.reference']
    """

    def __init__(self, loss: ScheduledContrastiveLoss) -> None:
        super().__init__()
        self.loss = loss

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the loss to the module's device; Lightning calls it."""
        self.loss.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log the weights of the step; Lightning calls it."""
        i2t, t2i = self.loss.weights.tolist()
        pl_module.log_dict({"weight/i2t": i2t, "weight/t2i": t2i})

    def state_dict(self) -> dict[str, Any]:
        """Return the loss's state, for the checkpoint.

        Returns:
            Name to tensor, copies of the scheduler's.
        """
        return {name: value.clone() for name, value in self.loss.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint's state.

        Args:
            state_dict: What :meth:`state_dict` returned; tensors of the same shapes.
        """
        self.loss.load_state_dict(state_dict)
