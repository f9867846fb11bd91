"""Hugging Face ``Trainer``: the scheduled loss of two-tower models such as ``CLIPModel``."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer

from ..losses import ScheduledContrastiveLoss
from ..metrics import recall_at_k
from ._trainer import TrainerSteps, calling_trainer

__all__ = ["NOT_EMBEDDINGS", "ScheduledTrainerLoss", "recall_metrics"]

NOT_EMBEDDINGS = ["logits_per_image", "logits_per_text", "text_model_output", "vision_model_output"]
"""Outputs of ``CLIPModel`` and its like that :func:`recall_metrics` has no use for: pass them to
the trainer as ``ignore_keys`` or ``ignore_keys_for_eval``.

>>> "text_embeds" in NOT_EMBEDDINGS
False
"""


class ScheduledTrainerLoss(nn.Module):
    """The scheduled loss of two-tower models: the ``compute_loss_func`` of a ``Trainer``.

    The scheduler takes one step per optimiser step, with the first micro-batch if gradients are
    accumulated; loss and gradients are then those of the model's own loss. The trainer's
    checkpoints hold the scheduler's state, and its log the weights, signals and temperature.
    Nothing else has to be passed to the trainer.

    Args:
        model: The trained model; in a trainer with ``model_init``, the model that this makes takes
            its place. Its ``logit_scale``, if there is one, is the logarithm of 1 / τ, and is
            learned, as its ``logit_bias`` is for the loss ``sigmoid``. If it has a parameter
            ``temperature`` instead, as ``AlignModel`` has, that is τ.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.
        gather: Whether to gather the batch of all processes.
        options: Further options of :class:`lib.losses.ScheduledContrastiveLoss`, such as ``loss``.

    >>> import torch
    >>> model = nn.Linear(2, 2)  # stands for a CLIPModel
    >>> loss_of = ScheduledTrainerLoss(model)
    >>> outputs = {"image_embeds": torch.eye(2), "text_embeds": torch.eye(2)}
    >>> loss_of(outputs).item() < 1e-3
    True
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: nn.Module | None = None,
        *,
        gather: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.loss = ScheduledContrastiveLoss(scheduler, gather=gather, **options)
        # Not a submodule: the trainer holds the model.
        self._model = (model,)
        self._steps = TrainerSteps(self.loss)

    def forward(
        self, outputs: Any, labels: Tensor | None = None, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            outputs: ``image_embeds`` and ``text_embeds``, (B, d) each, of unit length.
            labels: Plays no role: pairs lie on the diagonal.
            num_items_in_batch: Plays no role, except that a trainer multiplies the loss by the
                number of its processes if there are labels; that is taken back here.

        Returns:
            (): the loss; in a trainer that accumulates gradients, divided by the number of
            micro-batches, as the trainer divides a model's own loss.

        Raises:
            ValueError: The outputs lack embeddings, or the embeddings are not a batch of pairs.
        """
        try:
            image, text = outputs["image_embeds"], outputs["text_embeds"]
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"the model's outputs lack image_embeds or text_embeds ({error}); a two-tower "
                "model such as CLIPModel has both, with return_dict=True"
            ) from None
        trainer = calling_trainer()
        model: Any = self._model[0]
        if trainer is not None and trainer.model_init is not None:
            model = trainer.model  # The given model is not the one that learns.
        model = getattr(model, "module", model)  # Of DistributedDataParallel.
        self.loss.train(model.training)
        if trainer is not None and model.training and torch.is_grad_enabled():
            self._steps.begin(trainer)
        bias = getattr(model, "logit_bias", None)
        loss = self.loss(image, text, _scale(model), logit_bias=bias)
        if trainer is None:
            return loss
        return loss / _multiple(trainer, model.training, num_items_in_batch)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward


def _scale(model: nn.Module) -> Tensor | None:
    """Return 1 / τ of a two-tower model that learns its temperature, or None."""
    scale, temperature = (getattr(model, name, None) for name in ("logit_scale", "temperature"))
    if isinstance(scale, Tensor):
        return scale.exp()
    return 1 / temperature if isinstance(temperature, Tensor) else None


def _multiple(trainer: Trainer, training: bool, items: Any) -> float:
    """Return how many times too large a batch's mean loss would become in a trainer."""
    multiple = 1.0
    # Else compute_loss of a subclass calls, and the trainer treats its loss as a model's own.
    is_function = trainer.compute_loss_func is not None
    is_scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
    if is_scaled is None:
        is_scaled = is_function or (trainer.model_accepts_loss_kwargs and items is not None)
    if training and is_scaled:
        # The last group of an epoch may not be full.
        usual = trainer.args.gradient_accumulation_steps
        multiple *= getattr(trainer, "current_gradient_accumulation_steps", usual)
    across = getattr(trainer.args, "average_tokens_across_devices", False)
    if is_function and items is not None and across:
        multiple *= trainer.args.n_gpu if trainer.args.n_gpu > 1 else trainer.args.world_size
    return multiple


def recall_metrics(
    ks: Sequence[int] = (1, 5, 10), names: tuple[str, str] = ("text_embeds", "image_embeds")
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return a ``compute_metrics`` of a ``Trainer``: recall with exact ties.

    The trainer's outputs must be the embeddings alone: pass :data:`NOT_EMBEDDINGS` as
    ``ignore_keys_for_eval``. Row i of both is a pair; with labels, rows of one label are captions
    of one image.

    Args:
        ks: The ranks.
        names: The two outputs in the model's order.

    Returns:
        A function from the trainer's ``EvalPrediction`` to the names and values of
        :meth:`lib.metrics.RetrievalMetrics.as_dict`, with ``_`` for spaces.

    Raises:
        ValueError: ``names`` are not ``image_embeds`` and ``text_embeds``.

    >>> embeddings = torch.eye(3).numpy()
    >>> outputs = EvalPrediction(predictions=(embeddings, embeddings), label_ids=None)
    >>> recall_metrics(ks=(1,))(outputs)["i2t_R@1"]
    100.0
    """
    if sorted(names) != ["image_embeds", "text_embeds"]:
        raise ValueError(f"names must be image_embeds and text_embeds; they are {names}")

    def compute(outputs: EvalPrediction) -> dict[str, float]:
        found = outputs.predictions
        if not isinstance(found, tuple) or [getattr(each, "ndim", 0) for each in found] != [2, 2]:
            raise ValueError(
                "the trainer's outputs must be the embeddings alone: pass NOT_EMBEDDINGS of "
                "lib.adapters.huggingface as ignore_keys_for_eval"
            )
        by_name = dict(zip(names, found, strict=True))
        image, text = by_name["image_embeds"], by_name["text_embeds"]
        owner = torch.arange(len(text))
        # Without labels, some versions give None and some an empty tuple.
        if outputs.label_ids is not None and len(outputs.label_ids):
            labels = torch.as_tensor(outputs.label_ids)
            distinct, owner = torch.unique(labels, return_inverse=True)
            first = [int((owner == place).nonzero()[0]) for place in range(len(distinct))]
            image = image[first]
        kept = tuple(k for k in ks if k <= len(image))
        measured = recall_at_k(image, text, owner, ks=kept).as_dict()
        return {name.replace(" ", "_"): value for name, value in measured.items()}

    return compute
