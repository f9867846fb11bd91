"""Hugging Face ``Trainer``: the scheduled loss of two-tower models such as ``CLIPModel``."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..losses import ScheduledContrastiveLoss

__all__ = ["ScheduledTrainerLoss"]


class ScheduledTrainerLoss(nn.Module):
    """The scheduled loss of two-tower models: the ``compute_loss_func`` of a ``Trainer``.

    Args:
        model: The trained model. Its ``logit_scale``, if there is one, is the logarithm of 1 / τ,
            and is learned.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        gather: Whether to gather the batch of all processes.

    >>> import torch
    >>> model = nn.Linear(2, 2)  # stands for a CLIPModel
    >>> loss_of = ScheduledTrainerLoss(model)
    >>> outputs = {"image_embeds": torch.eye(2), "text_embeds": torch.eye(2)}
    >>> loss_of(outputs).item() < 1e-3
    True
    """

    def __init__(
        self, model: nn.Module, scheduler: nn.Module | None = None, *, gather: bool = False
    ) -> None:
        super().__init__()
        self.loss = ScheduledContrastiveLoss(scheduler, gather=gather)
        # Not a submodule: the trainer holds the model.
        self._model = (model,)

    def forward(
        self, outputs: Any, labels: Tensor | None = None, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            outputs: ``image_embeds`` and ``text_embeds``, (B, d) each, of unit length.
            labels: Plays no role: pairs lie on the diagonal.
            num_items_in_batch: Plays no role: the trainer's count for accumulated gradients.

        Returns:
            (): the loss.

        Raises:
            ValueError: The outputs lack embeddings, or the embeddings are not a batch of pairs.
        """
        try:
            image, text = outputs["image_embeds"], outputs["text_embeds"]
        except KeyError as error:
            raise ValueError(
                f"the model's outputs lack {error}; a two-tower model such as CLIPModel has "
                "image_embeds and text_embeds"
            ) from None
        model = self._model[0]
        self.loss.train(model.training)
        scale = getattr(model, "logit_scale", None)
        return self.loss(image, text, None if scale is None else scale.exp())

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward
