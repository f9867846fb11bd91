"""open_clip: a replacement for ``ClipLoss``; this module does not import open_clip."""

from typing import TYPE_CHECKING, Literal, overload

from torch import Tensor, nn

from ..losses import ScheduledContrastiveLoss

__all__ = ["ScheduledClipLoss"]


class ScheduledClipLoss(nn.Module):
    """A replacement for ``open_clip.ClipLoss`` with a scheduler, made and called alike.

    Several processes always gather features with their gradients, as ``ClipLoss`` does with
    ``gather_with_grad=True`` and ``local_loss=False``, so that each has the whole batch's signal.

    Args:
        local_loss: Must be False: a scheduler needs the whole batch's similarities.
        gather_with_grad: Plays no role: gradients are always gathered.
        cache_labels: Plays no role: there are no labels to cache.
        rank: Plays no role: the order of processes comes from ``torch.distributed``.
        world_size: Number of processes.
        use_horovod: Must be False.
        scheduler: As for :class:`lib.losses.ScheduledContrastiveLoss`.

    Raises:
        ValueError: An option is not supported; the message names it.

    Source:
        Radford et al. (2021), figure 3, for the loss.

    >>> import torch
    >>> loss_of = ScheduledClipLoss()
    >>> features, scale = torch.eye(4), torch.tensor(10.0)
    >>> sorted(loss_of(features, features, scale, output_dict=True))
    ['contrastive_loss']
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = True,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        scheduler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if local_loss:
            raise ValueError(
                "local_loss must be False: a scheduler reads the similarities of the whole batch"
            )
        if use_horovod:
            raise ValueError("use_horovod must be False: this loss uses torch.distributed")
        self.loss = ScheduledContrastiveLoss(scheduler, gather=world_size > 1)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Return the loss, or ``{"contrastive_loss": loss}`` with ``output_dict``.

        Args:
            image_features: (B, d) of unit length.
            text_features: (B, d) of unit length.
            logit_scale: (), 1 / τ, as open_clip's models return it.
            logit_bias: () plays no role: a constant on every logit does not change a softmax.
            output_dict: As in open_clip.

        Returns:
            (): the loss, alone or by name.

        Raises:
            ValueError: The features are not a batch of pairs, or a number is not finite.
        """
        loss = self.loss(image_features, text_features, logit_scale)
        return {"contrastive_loss": loss} if output_dict else loss

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.

        @overload
        def __call__(
            self,
            image_features: Tensor,
            text_features: Tensor,
            logit_scale: Tensor,
            logit_bias: Tensor | None = None,
            output_dict: Literal[False] = False,
        ) -> Tensor: ...

        @overload
        def __call__(
            self,
            image_features: Tensor,
            text_features: Tensor,
            logit_scale: Tensor,
            logit_bias: Tensor | None = None,
            *,
            output_dict: Literal[True],
        ) -> dict[str, Tensor]: ...

        def __call__(self, *args: object, **kwargs: object) -> object:
            """Call :meth:`forward`."""
