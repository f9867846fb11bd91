"""pytorch-metric-learning: a loss over a reference set, and a reducer that weights directions."""

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import ScheduledContrastiveLoss
from ..schedulers import Scheduler
from ..schedulers._checks import check_is_tensor

__all__ = ["DirectionReducer", "ScheduledPairLoss"]


class ScheduledPairLoss(nn.Module):
    """The scheduled loss, called like the library's losses: images, and captions as ``ref_emb``.

    Args:
        temperature_or_scheduler: By position, the ``temperature`` as in the library, or the
            ``scheduler``.
        temperature: τ > 0, as in the library's ``NTXentLoss``, 0.07 by default.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        options: Further options of :class:`lib.losses.ScheduledContrastiveLoss`, such as ``loss``.

    Raises:
        ValueError: ``temperature`` is not positive, or given twice, as ``scheduler`` may be.

    >>> image, labels = torch.eye(3), torch.tensor([7, 8, 9])
    >>> text, text_labels = image.flip(0), labels.flip(0)
    >>> loss_of = ScheduledPairLoss(0.1)
    >>> loss_of(image, labels, ref_emb=text, ref_labels=text_labels).item() < 1e-3
    True
    """

    def __init__(
        self,
        temperature_or_scheduler: float | nn.Module | None = None,
        *,
        temperature: float | None = None,
        scheduler: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(temperature_or_scheduler, nn.Module):
            scheduler, twice = temperature_or_scheduler, scheduler is not None
        else:
            twice = temperature is not None and temperature_or_scheduler is not None
            temperature = temperature_or_scheduler if temperature is None else temperature
        if twice:
            raise ValueError("temperature_or_scheduler gives what is also given by its name")
        temperature = 0.07 if temperature is None else temperature
        self.loss = ScheduledContrastiveLoss(scheduler, temperature=temperature, **options)

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
            labels: (B,) of the images.
            indices_tuple: Must be None: every other pair is a negative.
            ref_emb: (M, d) of the captions.
            ref_labels: (M,) the image of each caption, in any order; default: ``labels``. Captions
                of one label match each other's image. If labels of images repeat, each image needs
                as many captions as it has rows.

        Returns:
            (): the loss.

        Raises:
            ValueError: The captions are missing, shapes differ, labels do not match, or a number is
                not finite.
        """
        if ref_emb is None:
            raise ValueError("ref_emb is missing: the captions' embeddings, (M, d)")
        if indices_tuple is not None:
            raise ValueError("indices_tuple must be None: this loss does not work with a miner")
        given = {"embeddings": embeddings, "ref_emb": ref_emb, "labels": labels}
        for name, value in given.items():
            check_is_tensor(name, value)
        if ref_labels is not None:
            check_is_tensor("ref_labels", ref_labels)
        ref_labels = labels if ref_labels is None else ref_labels.to(labels.device)
        shapes = [tuple(x.shape) for x in (embeddings, ref_emb, labels, ref_labels)]
        if [*shapes[0][:1], *shapes[1][:1]] != [*shapes[2], *shapes[3]] or len(shapes[0]) != 2:
            raise ValueError(
                "embeddings must be (B, d), ref_emb (M, d), labels (B,) and ref_labels (M,); their "
                f"shapes are {', '.join(map(str, shapes))}"
            )
        image, text, group = _matched(embeddings, labels, ref_emb, ref_labels)
        repeated = bool((group.sort().values.diff() == 0).any())
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        return self.loss(image, text, group=group if repeated else None)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward


def _matched(
    image: Tensor, labels: Tensor, text: Tensor, ref_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images and captions row by row, and the label of each row."""
    order, ref_order = labels.argsort(stable=True), ref_labels.argsort(stable=True)
    ordered, ref_ordered = labels[order], ref_labels[ref_order]
    if torch.equal(ordered, ref_ordered):
        return image[order], text[ref_order], ordered
    if not torch.equal(ordered, torch.unique(ref_ordered)):
        raise ValueError(
            "labels and ref_labels must be the same labels; if images have different numbers of "
            "captions, labels must name each image once"
        )
    return image[order][torch.searchsorted(ordered, ref_labels)], text, ref_labels


class DirectionReducer(BaseReducer):  # type: ignore[misc]
    """Weight a loss of the library by direction: image anchors, then caption anchors.

    Pass it as ``reducer`` to a loss over ``torch.cat([image, text])`` with the labels twice. The
    weights come from the similarities of the first half with the second. In evaluation mode and
    under ``torch.no_grad`` the loss has its usual mean, and the scheduler does not move; set
    ``advances`` as for :class:`lib.losses.ScheduledContrastiveLoss`.

    The library's losses copy their reducer: the scheduler that takes the steps is
    ``loss.reducer.scheduler`` (``loss.reducer.reducers["pos_loss"].scheduler`` if the loss has
    several terms). A loss without one number per anchor, pair or triplet, such as
    ``HistogramLoss``, ``NPairsLoss`` or ``ProxyAnchorLoss``, is refused.

    Args:
        scheduler: A scheduler of the directions' weights; default ``variance × direction``.
        kwargs: Arguments of the library's reducers.

    Raises:
        ValueError: ``scheduler`` sets the temperature or weights queries, which a reducer cannot.

    >>> from pytorch_metric_learning.losses import NTXentLoss
    >>> loss_of = NTXentLoss(reducer=DirectionReducer())
    >>> both = torch.cat([torch.eye(3), torch.eye(3)])
    >>> loss_of(both, torch.arange(3).repeat(2)).item() < 1e-3
    True
    """

    def __init__(self, scheduler: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_directions(scheduler)
        self.scheduler = Scheduler() if scheduler is None else scheduler
        self.advances = True
        # Not a submodule: the scheduler is one already.
        self._loss = (ScheduledContrastiveLoss(self.scheduler),)

    def element_reduction(
        self, losses: Tensor, loss_indices: Any, embeddings: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the weighted mean of a loss per embedding.

        Args:
            losses: (2 B,) or (2 B, 1) loss of each anchor.
            loss_indices: (2 B,) row of each anchor in ``embeddings``.
            embeddings: (2 B, d), the images then as many captions.
            labels: (2 B,) of the images, then the same of the captions.

        Returns:
            (): the loss.

        Raises:
            ValueError: The losses are not of the embeddings, ``embeddings`` are not images and as
                many captions with the same labels, or a number is not finite.
        """
        if len(losses) != len(embeddings):
            _refuse(f"{len(losses)} losses of {len(embeddings)} embeddings")
        return self._mean(losses, loss_indices, embeddings, labels)

    def pos_pair_reduction(
        self, losses: Tensor, loss_indices: Any, embeddings: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the weighted mean of a loss per pair or triplet, by its anchor.

        Args:
            losses: (P,) or (P, 1) loss of each pair.
            loss_indices: The rows of each pair's items in ``embeddings``, (P,) each, anchors first.
            embeddings: (2 B, d), the images then as many captions.
            labels: (2 B,) of the images, then the same of the captions.

        Returns:
            (): the loss.

        Raises:
            ValueError: As :meth:`element_reduction`.
        """
        return self._mean(losses, loss_indices[0], embeddings, labels)

    neg_pair_reduction = triplet_reduction = pos_pair_reduction

    def already_reduced_reduction(
        self, losses: Tensor, loss_indices: Any, embeddings: Tensor, labels: Tensor
    ) -> NoReturn:
        """Refuse a loss that is one number already.

        Args:
            losses: (), the loss.
            loss_indices: Plays no role.
            embeddings: (2 B, d) plays no role.
            labels: (2 B,) plays no role.

        Raises:
            ValueError: Always.
        """
        _refuse("a single number")

    def _mean(self, losses: Tensor, anchor: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        half = len(embeddings) // 2
        if len(embeddings) % 2 or not torch.equal(labels[:half], labels[half:]):
            raise ValueError(
                "embeddings must be the images, then as many captions, and labels those of the "
                f"images, twice; there are {len(embeddings)} embeddings"
            )
        losses = losses.flatten()
        if not (self.training and torch.is_grad_enabled()):
            return losses.mean()
        (loss,) = self._loss
        _check_directions(self.scheduler)
        loss.scheduler, loss.advances = self.scheduler, self.advances
        unit = F.normalize(embeddings.detach(), dim=-1)
        loss(unit[:half], unit[half:], 1.0)
        return (loss.weights.to(losses)[(anchor >= half).long()] * losses).mean()


def _check_directions(scheduler: nn.Module | None) -> None:
    sets_temperature = getattr(scheduler, "sets_temperature", False)
    if sets_temperature or getattr(scheduler, "actuator_name", None) == "sample":
        raise ValueError(
            f"scheduler must weight directions, since a reducer has losses and no similarities; "
            f"it is {scheduler}: use ScheduledPairLoss"
        )


def _refuse(found: str) -> NoReturn:
    raise ValueError(
        "DirectionReducer weights losses of anchors, pairs or triplets, by the direction of the "
        f"anchor; this loss gives {found}: it needs another reducer"
    )
