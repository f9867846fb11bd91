"""Hugging Face ``Trainer``: the scheduled loss of two-tower models such as ``CLIPModel``."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lib.losses import ScheduledContrastiveLoss


class ScheduledTrainerLoss(nn.Module):
    """Give it to the ``Trainer`` as ``compute_loss_func``.

    Args:
        model: What is trained: its ``logit_scale``, the logarithm of 1 / τ, is learned with it.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        gather: Whether the batch is that of all processes.

    Raises:
        ValueError: The outputs have no ``image_embeds`` and ``text_embeds``.
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
        """Return the loss of a batch from the model's outputs, embeddings of unit length."""
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

    if TYPE_CHECKING:  # nn.Module's own takes anything and gives Any.
        __call__ = forward
