"""The embeddings of all processes, with gradients, so that each computes the whole batch's loss."""

import torch
from torch import Tensor


def gather_pairs(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of all processes, in the order of their ranks.

    Every process then has the same similarities, signals, weights and loss as one process with the
    whole batch. The gradients that come back are summed over processes; ``DistributedDataParallel``
    takes the mean of the parameters' gradients, so that they equal those of one process, too.
    Outside ``torch.distributed``, or with one process, the embeddings are returned as they are.

    Args:
        image: (b, d), with the same b in every process.
        text: (b, d).

    Returns:
        (W · b, d) twice, for W processes.

    >>> gather_pairs(torch.eye(2), torch.eye(2))[0].shape
    torch.Size([2, 2])
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return image, text
    if distributed.get_world_size() == 1:
        return image, text
    from torch.distributed.nn.functional import all_gather

    # One exchange for both, so that a step waits once.
    parts = all_gather(torch.stack([image, text]))  # type: ignore[no-untyped-call]
    both = torch.cat(parts, dim=1)
    return both[0], both[1]
