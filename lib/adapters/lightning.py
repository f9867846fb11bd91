"""Lightning: log a scheduled loss, save its state, and measure recall with exact ties."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ..losses import ScheduledContrastiveLoss
from ..losses.scheduled import check_loss
from ..metrics import recall_at_k

__all__ = ["RecallCallback", "SchedulerCallback"]


class SchedulerCallback(Callback):  # type: ignore[misc]
    """Log weights, signals and temperature of each step, and count steps under accumulation.

    With ``Trainer(accumulate_grad_batches=k)``, the scheduler takes a step with the first of k
    batches: that needs this callback. Lightning validates under ``torch.no_grad``, where the loss
    is plain and nothing moves.

    A loss that is an attribute of the module is in the module's ``state_dict``. The callback also
    saves the state of the loss, so that a loss elsewhere (in a closure) is resumed as well.

    Args:
        loss: The loss that the module's training step calls.

    Raises:
        ValueError: ``loss`` is another loss.

    >>> callback = SchedulerCallback(ScheduledContrastiveLoss())
    >>> sorted(callback.state_dict())[:2]
    ['scheduler.average', 'scheduler.reference']
    """

    def __init__(self, loss: ScheduledContrastiveLoss) -> None:
        super().__init__()
        check_loss(loss)
        self.loss = loss

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the scheduler advance with the first batch of an optimiser step; Lightning calls it.

        Lightning takes an optimiser step with the last batch of an epoch, so that each epoch starts
        with the first batch of a step.
        """
        self.loss.advances = batch_idx % trainer.accumulate_grad_batches == 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log weights, signals and temperature of the latest step; Lightning calls it."""
        pl_module.log_dict(self.loss.latest())

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


class RecallCallback(Callback):  # type: ignore[misc]
    """Log recall with exact ties over the whole validation set, at the end of each validation.

    The module's ``validation_step`` returns a mapping with ``image_embeddings``, (b, d), and
    ``text_embeddings``, (b, d) or (b, K, d) for K captions per image. The names are those of
    :meth:`lib.metrics.RetrievalMetrics.as_dict`: ``val/i2t R@1``, …, ``val/rSum``.

    Args:
        ks: The ranks.
        prefix: Of the names.

    >>> RecallCallback(ks=(1, 5)).ks
    (1, 5)
    """

    def __init__(self, ks: Sequence[int] = (1, 5, 10), prefix: str = "val/") -> None:
        super().__init__()
        self.ks, self.prefix = tuple(ks), prefix
        self._batches: list[tuple[Tensor, Tensor]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the embeddings of an earlier validation; Lightning calls it.

        Raises:
            ValueError: There are several processes, each with a share of the set.
        """
        if trainer.world_size > 1:
            raise ValueError("RecallCallback measures in one process: validate with devices=1")
        self._batches.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor] | Tensor | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the embeddings of a batch; Lightning calls it.

        Args:
            trainer: Plays no role.
            pl_module: Plays no role.
            outputs: What ``validation_step`` returned, with embeddings (b, d) and (b, K, d).
            args: Play no role.
            kwargs: Play no role.

        Raises:
            ValueError: ``outputs`` lacks the embeddings.
        """
        names = ("image_embeddings", "text_embeddings")
        if not isinstance(outputs, Mapping) or not set(names) <= set(outputs):
            raise ValueError(f"validation_step must return a mapping with {' and '.join(names)}")
        image, text = (outputs[name].detach().float().cpu() for name in names)
        self._batches.append((image, text if text.dim() == 3 else text.unsqueeze(1)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the recalls, except those of the sanity check; Lightning calls it."""
        if trainer.sanity_checking:
            return
        image, text = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        owner = torch.arange(len(image)).repeat_interleave(text.shape[1])
        ks = tuple(k for k in self.ks if k <= len(image))
        found = recall_at_k(image, text.flatten(0, 1), owner, ks=ks).as_dict()
        pl_module.log_dict({self.prefix + name: value for name, value in found.items()})
