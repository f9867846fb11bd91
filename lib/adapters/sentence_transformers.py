"""sentence-transformers: a loss for its trainer, over two columns of pairs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import ScheduledContrastiveLoss
from ..schedulers._checks import check_number

__all__ = ["ScheduledMultipleNegativesLoss"]


class ScheduledMultipleNegativesLoss(nn.Module):
    """``MultipleNegativesSymmetricRankingLoss`` with a scheduler; pass it to the trainer as a loss.

    The first column stands for the images (``i2t``), the second for the captions.

    Args:
        model: The trained ``SentenceTransformer``.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        scale: 1 / τ, above 0; 20 is the library's default.
        gather_across_devices: Whether to gather the batch of all processes.

    Raises:
        ValueError: ``scale`` is not positive.

    >>> import torch
    >>> class Towers(nn.Module):  # stands for a SentenceTransformer
    ...     def forward(self, features):
    ...         return {"sentence_embedding": features["embedded"]}
    >>> loss_of = ScheduledMultipleNegativesLoss(Towers())
    >>> anchor, positive = {"embedded": torch.eye(3)}, {"embedded": torch.eye(3)}
    >>> loss_of([anchor, positive]).item() < 1e-3
    True
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: nn.Module | None = None,
        scale: float = 20.0,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        check_number("scale", scale, "1 / τ, positive and finite", lambda value: value > 0)
        self.model = model
        self.loss = ScheduledContrastiveLoss(
            scheduler, temperature=1 / scale, gather=gather_across_devices
        )

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch of pairs.

        Args:
            sentence_features: Two columns of tokens, (B, tokens) each, as the model takes them.
            labels: Plays no role, of any shape (...): a pair is a row.

        Returns:
            (): the loss.

        Raises:
            ValueError: There are not two columns, or a number is not finite.
        """
        columns = [self.model(features)["sentence_embedding"] for features in sentence_features]
        if len(columns) != 2:
            raise ValueError(
                f"sentence_features holds {len(columns)} columns; a pair has two, such as "
                "anchor and positive"
            )
        first, second = (F.normalize(column, dim=-1) for column in columns)
        return self.loss(first, second)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings for the library's model card.

        Returns:
            ``scheduler`` and ``scale``.
        """
        return {"scheduler": repr(self.loss.scheduler), "scale": 1 / self.loss.temperature}
