"""pytorch-metric-learning: a loss over a reference set, and a reducer that weights directions."""

from typing import TYPE_CHECKING, Any

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import ScheduledContrastiveLoss
from ..schedulers import Scheduler
from ..schedulers._checks import check_finite

__all__ = ["DirectionReducer", "ScheduledPairLoss"]


class ScheduledPairLoss(nn.Module):
    """The scheduled loss, called like the library's losses: images, and captions as ``ref_emb``.

    Args:
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        temperature: τ > 0, as in the library's ``NTXentLoss``.

    Raises:
        ValueError: ``temperature`` is not positive.

    >>> image, labels = torch.eye(3), torch.tensor([7, 8, 9])
    >>> text, text_labels = image.flip(0), labels.flip(0)
    >>> loss_of = ScheduledPairLoss()
    >>> loss_of(image, labels, ref_emb=text, ref_labels=text_labels).item() < 1e-3
    True
    """

    def __init__(self, scheduler: nn.Module | None = None, temperature: float = 0.07) -> None:
        super().__init__()
        self.loss = ScheduledContrastiveLoss(scheduler, temperature=temperature)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of pairs, matched by their labels.

        Args:
            embeddings: (B, d) of the images; scaled to unit length here.
            labels: (B,) distinct labels.
            indices_tuple: Must be None: every other pair is a negative.
            ref_emb: (B, d) of the captions.
            ref_labels: (B,) the same labels in any order; default, in the same order.

        Returns:
            (): the loss.

        Raises:
            ValueError: The captions are missing, shapes differ, labels do not match one to one, or
                a number is not finite.
        """
        if ref_emb is None:
            raise ValueError("ref_emb is missing: the captions' embeddings, (B, d)")
        if indices_tuple is not None:
            raise ValueError("indices_tuple must be None: this loss does not work with a miner")
        if labels.shape != embeddings.shape[:1] or embeddings.shape != ref_emb.shape:
            raise ValueError(
                "embeddings and ref_emb must be (B, d) and labels (B,); their shapes are "
                f"{tuple(embeddings.shape)}, {tuple(ref_emb.shape)} and {tuple(labels.shape)}"
            )
        ref_labels = labels if ref_labels is None else ref_labels
        order, ref_order = labels.argsort(), ref_labels.argsort()
        same = labels.shape == ref_labels.shape and torch.equal(
            labels[order], ref_labels[ref_order]
        )
        if not same or bool((labels[order].diff() == 0).any()):
            raise ValueError("labels and ref_labels must be the same distinct labels, one per pair")
        image, text = (F.normalize(x, dim=-1) for x in (embeddings[order], ref_emb[ref_order]))
        return self.loss(image, text)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward


class DirectionReducer(BaseReducer):  # type: ignore[misc]
    """Weight any of the library's losses by direction: image anchors, then caption anchors.

    Pass it as ``reducer`` to a loss over ``torch.cat([image, text])`` with the labels twice. The
    weights come from the similarities of the first half with the second. The library's losses copy
    their reducer: the scheduler that takes the steps is ``loss.reducer.scheduler``.

    Args:
        scheduler: A scheduler of the directions' weights; default ``variance × direction``.
        kwargs: Arguments of the library's reducers.

    >>> from pytorch_metric_learning.losses import NTXentLoss
    >>> loss_of = NTXentLoss(reducer=DirectionReducer())
    >>> both = torch.cat([torch.eye(3), torch.eye(3)])
    >>> loss_of(both, torch.arange(3).repeat(2)).item() < 1e-3
    True
    """

    def __init__(self, scheduler: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scheduler = Scheduler() if scheduler is None else scheduler

    def element_reduction(
        self, losses: Tensor, loss_indices: Any, embeddings: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the weighted mean of a loss per embedding.

        Args:
            losses: (2 B,) loss of each anchor.
            loss_indices: (2 B,) row of each anchor in ``embeddings``.
            embeddings: (2 B, d), the images then as many captions.
            labels: (2 B,) plays no role.

        Returns:
            (): the loss.

        Raises:
            ValueError: ``embeddings`` has an odd number of rows, or a number is not finite.
        """
        return self._mean(losses, loss_indices, embeddings)

    def pos_pair_reduction(
        self, losses: Tensor, loss_indices: Any, embeddings: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the weighted mean of a loss per pair of an anchor and a positive.

        Args:
            losses: (P,) loss of each pair.
            loss_indices: The rows of each pair's items in ``embeddings``, (P,) each, anchors first.
            embeddings: (2 B, d), the images then as many captions.
            labels: (2 B,) plays no role.

        Returns:
            (): the loss.

        Raises:
            ValueError: As :meth:`element_reduction`.
        """
        return self._mean(losses, loss_indices[0], embeddings)

    neg_pair_reduction = triplet_reduction = pos_pair_reduction

    def _mean(self, losses: Tensor, anchor: Tensor, embeddings: Tensor) -> Tensor:
        if len(embeddings) % 2:
            raise ValueError(
                f"embeddings must be the images then as many captions; they are {len(embeddings)}"
            )
        check_finite("embeddings", embeddings)
        half = len(embeddings) // 2
        unit = F.normalize(embeddings.detach(), dim=-1)
        step = self.scheduler.quick if type(self.scheduler) is Scheduler else self.scheduler
        weights = step(unit[:half] @ unit[half:].T, 1.0).weights
        return (weights.to(losses.dtype)[(anchor >= half).long()] * losses).mean()
