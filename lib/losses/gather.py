"""Embeddings of all processes, with gradients: each process computes the whole batch's loss."""

from typing import Any

import torch
from torch import Tensor

from ..schedulers._checks import is_readable


def gather_pairs(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of all processes, in the order of their ranks.

    Every process then has the same similarities, signals, weights and loss as one process with the
    whole batch. The backward pass sums gradients over processes and ``DistributedDataParallel``
    averages those of the parameters, so that they also equal those of one process. Outside
    ``torch.distributed``, or with one process, the embeddings are returned unchanged.

    Args:
        image: (..., b, d), with the same b in every process.
        text: (..., b, d); row i of both is one pair.

    Returns:
        (..., W · b, d) twice, for W processes.

    Raises:
        ValueError: The shapes differ, or are not (..., b, d); or, on the CPU, another process has
            another b, d or size of numbers.

    >>> gather_pairs(torch.eye(2), torch.eye(2))[0].shape
    torch.Size([2, 2])
    """
    if image.dim() < 2 or image.shape != text.shape:
        raise ValueError(
            "image and text must be (..., b, d) both, row i of each one pair; their shapes are "
            f"{tuple(image.shape)} and {tuple(text.shape)}"
        )
    if _processes() == 1:
        return image, text
    if is_readable(image):
        _check_same(image)
    # One exchange for both, so that a step waits once.
    gathered: Tensor = _Gather.apply(torch.stack([image, text]))
    images, texts = torch.cat(gathered.unbind(), dim=-2)
    return images, texts


def gather_groups(group: Tensor) -> Tensor:
    """Return the groups of all processes, (..., W · b) of (..., b), as :func:`gather_pairs`."""
    if _processes() == 1:
        return group
    parts = [torch.empty_like(group) for _ in range(_processes())]
    torch.distributed.all_gather(parts, group.contiguous())
    return torch.cat(parts, dim=-1)


def _check_same(image: Tensor) -> None:
    """Raise a ValueError in all processes if their embeddings differ in shape or type.

    On the CPU only: on a GPU, a step would wait for the answer.
    """
    sizes = [*image.shape[-2:], image.itemsize]
    mine = torch.tensor(sizes)
    found = [torch.empty_like(mine) for _ in range(_processes())]
    torch.distributed.all_gather(found, mine)
    for what, values in zip(
        ("rows", "columns", "bytes per number"),
        zip(*map(Tensor.tolist, found), strict=True),
        strict=True,
    ):
        if len({*values}) > 1:
            raise ValueError(
                f"image and text must have the same {what} in every process to be gathered; the "
                f"processes have {', '.join(map(str, values))}: use drop_last, and one type"
            )


def _processes() -> int:
    distributed = torch.distributed
    started = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if started else 1


class _Gather(torch.autograd.Function):
    """``torch.distributed.all_gather`` with gradients: (…) in every process to (W, …) in each.

    Torch's own is deprecated in favour of a private module.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, local.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # The loss of every process depends on the embeddings of this one.
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[torch.distributed.get_rank()]
