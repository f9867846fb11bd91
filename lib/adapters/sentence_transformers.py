"""sentence-transformers: a loss for its trainer, and recall with exact ties as an evaluator."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import ScheduledContrastiveLoss
from ..metrics import recall_at_k
from ..schedulers._checks import check_number, fitted
from ._trainer import KEY, TrainerSteps, calling_trainer

__all__ = ["RecallEvaluator", "ScheduledMultipleNegativesLoss"]


class ScheduledMultipleNegativesLoss(nn.Module):
    """A scheduled ``MultipleNegativesRankingLoss`` in both directions: the trainer's ``loss``.

    With :class:`lib.schedulers.Fixed` it is the library's loss with
    ``directions=("query_to_doc", "doc_to_query")`` and ``partition_mode="per_direction"``.

    The first column stands for the images (``i2t``), the second for the captions. The scheduler
    takes one step per optimiser step, with the first micro-batch if gradients are accumulated. The
    trainer's checkpoints hold the scheduler's state, and its log the weights, signals and
    temperature. Nothing else has to be passed to the trainer.

    Args:
        model: The trained ``SentenceTransformer``.
        scale_or_scheduler: By position, the ``scale`` as in the library, or the ``scheduler``.
        scale: 1 / τ, above 0; 20 is the library's default.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        gather_across_devices: Whether to gather the batch of all processes.
        several_captions: Whether each column after the first holds another caption of the same
            image. In the library a third column holds hard negatives, which this loss does not
            take, so that it refuses one unless this is True.
        options: Further options of :class:`lib.losses.ScheduledContrastiveLoss`, such as ``loss``.

    Raises:
        ValueError: ``scale`` is not positive, or given twice, as ``scheduler`` may be.

    >>> import torch
    >>> class Towers(nn.Module):  # stands for a SentenceTransformer
    ...     def forward(self, features):
    ...         return {"sentence_embedding": features["embedded"]}
    >>> loss_of = ScheduledMultipleNegativesLoss(Towers(), 20.0)
    >>> anchor, positive = {"embedded": torch.eye(3)}, {"embedded": torch.eye(3)}
    >>> loss_of([anchor, positive]).item() < 1e-3
    True
    """

    def __init__(
        self,
        model: nn.Module,
        scale_or_scheduler: float | nn.Module | None = None,
        *,
        scale: float | None = None,
        scheduler: nn.Module | None = None,
        gather_across_devices: bool = False,
        several_captions: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(scale_or_scheduler, nn.Module):
            scheduler, twice = scale_or_scheduler, scheduler is not None
        else:
            twice = scale is not None and scale_or_scheduler is not None
            scale = scale_or_scheduler if scale is None else scale
        if twice:
            raise ValueError("scale_or_scheduler gives what is also given by its name")
        given = fitted("scale", 20.0 if scale is None else scale, ())
        check_number("scale", given, "1 / τ, positive and finite", lambda value: value > 0)
        self.model = model
        self.several_captions = several_captions
        self.loss = ScheduledContrastiveLoss(
            scheduler, temperature=1 / float(given), gather=gather_across_devices, **options
        )
        self._steps = TrainerSteps(self.loss)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch of pairs.

        Args:
            sentence_features: Two columns of inputs, (B, tokens) each, as the model takes them;
                more with ``several_captions``.
            labels: Plays no role, of any shape (...): a pair is a row.

        Returns:
            (): the loss.

        Raises:
            ValueError: There are not two columns, or a number is not finite.
        """
        columns = [self.model(features)["sentence_embedding"] for features in sentence_features]
        if len(columns) < 2 or (len(columns) > 2 and not self.several_captions):
            raise ValueError(
                f"sentence_features holds {len(columns)} columns; a pair has two, such as "
                "anchor and positive. Further columns must be further captions of the same image "
                "(several_captions=True), since this loss takes no hard negatives"
            )
        first, *others = (F.normalize(column, dim=-1) for column in columns)
        self.loss.train(self.model.training)
        trainer = calling_trainer() if self.model.training and torch.is_grad_enabled() else None
        if trainer is not None:
            # A trainer may have a loss per data set.
            losses = getattr(trainer, "loss", None)
            named = losses.items() if isinstance(losses, dict) else ()
            name = next((f"/{name}" for name, loss in named if loss is self), "")
            self._steps.begin(trainer, KEY + name)
        return self.loss(first, torch.stack(others, dim=1) if len(others) > 1 else others[0])

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings for the library's model card.

        Returns:
            ``scheduler`` and ``scale``.
        """
        return {"scheduler": repr(self.loss.scheduler), "scale": 1 / self.loss.temperature}


class RecallEvaluator(BaseEvaluator):  # type: ignore[misc]
    """Recall with exact ties of images and captions, as an evaluator of the library's trainer.

    Args:
        images: N inputs of the model's first kind, such as images.
        captions: M inputs of the second kind.
        caption_owner: The place of each caption's image in ``images``; default: caption i is of
            image i.
        ks: The ranks.
        name: Prefix of the metrics.
        batch_size: Of ``model.encode``.

    Raises:
        ValueError: There is no ``caption_owner``, and not one caption per image.

    >>> RecallEvaluator(["an image"] * 20, ["a caption"] * 20, name="val").primary_metric
    'val_rSum'
    """

    def __init__(
        self,
        images: Sequence[Any],
        captions: Sequence[Any],
        caption_owner: Sequence[int] | None = None,
        *,
        ks: Sequence[int] = (1, 5, 10),
        name: str = "",
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        if caption_owner is None:
            if len(images) != len(captions):
                raise ValueError(
                    f"caption_owner is missing: {len(captions)} captions of {len(images)} images"
                )
            caption_owner = range(len(images))
        self.images, self.captions, self.caption_owner = images, captions, caption_owner
        self.ks, self.name, self.batch_size = tuple(ks), name, batch_size
        self.primary_metric = f"{name}_rSum" if name else "rSum"

    def __call__(
        self,
        model: SentenceTransformer,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Return the recalls, and store them for the model's card.

        Args:
            model: The evaluated model.
            output_path: Plays no role: nothing is written.
            epoch: Of the model's card.
            steps: Of the model's card.

        Returns:
            Names and values of :meth:`lib.metrics.RetrievalMetrics.as_dict`, with ``_`` for spaces
            and ``name`` in front.

        Raises:
            ValueError: ``caption_owner`` does not fit the images and captions.
        """
        image, text = (
            model.encode(
                list(inputs),
                batch_size=self.batch_size,
                show_progress_bar=False,
                convert_to_tensor=True,
                normalize_embeddings=True,
            )
            for inputs in (self.images, self.captions)
        )
        found = recall_at_k(image, text, self.caption_owner, ks=self.ks).as_dict()
        metrics = {key.replace(" ", "_"): value for key, value in found.items()}
        named: dict[str, float] = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, named, epoch, steps)
        return named
