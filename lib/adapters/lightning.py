"""Lightning: log a scheduled loss's weights, and save its state in checkpoints."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ..losses import ScheduledContrastiveLoss

__all__ = ["SchedulerCallback"]


class SchedulerCallback(Callback):  # type: ignore[misc]
    """Log a scheduled loss's weights as ``weight/i2t`` and ``weight/t2i`` after each training step.

    A loss that is an attribute of the module is in the module's ``state_dict``. For any other loss
    (of the data module, or in a closure), this callback saves the state in checkpoints and moves
    the loss to the module's device.

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
            Name to tensor, copies of the scheduler's buffers.
        """
        return {name: value.clone() for name, value in self.loss.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Load the loss's state from a checkpoint.

        Args:
            state_dict: Result of :meth:`state_dict`; tensors of the same shapes.
        """
        self.loss.load_state_dict(state_dict)
