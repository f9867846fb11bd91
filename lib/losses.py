"""Contrastive losses for each direction and query, and how weights combine them.

Everything here depends on torch alone and works on any number of leading batch axes.
"""

import torch
from torch import Tensor

from lib.schedulers.actuators import Schedule


def info_nce(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the InfoNCE loss of each query in both directions.

    ℓ_i^i2t = −log softmax(S_i· / τ)_i and ℓ_j^t2i = −log softmax(S_·j / τ)_j (van den Oord et al.,
    2018; Radford et al., 2021).

    Args:
        similarity: (..., B, B); S_ij of image i and caption j, pairs on the diagonal.
        temperature: τ > 0, a number or (...).

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``.

    >>> info_nce(torch.zeros(2, 2), 0.1)
    tensor([[0.6931, 0.6931],
            [0.6931, 0.6931]])
    """
    tau = torch.as_tensor(temperature, dtype=similarity.dtype, device=similarity.device)
    logits = similarity / tau[..., None, None]
    partition = torch.stack([logits.logsumexp(dim=-1), logits.logsumexp(dim=-2)], dim=-2)
    return partition - logits.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)


def weighted_mean(losses: Tensor, schedule: Schedule) -> Tensor:
    """Combine per-query losses: L = ½ Σ_d w_d · mean_i(a_i^d ℓ_i^d).

    Args:
        losses: (..., 2, B).
        schedule: Its weights (..., 2) and sample weights (..., 2, B).

    Returns:
        (...): one loss a run.
    """
    per_direction = (schedule.sample_weights * losses).mean(dim=-1)
    return (schedule.weights * per_direction).mean(dim=-1)


def contrastive_loss(similarity: Tensor, schedule: Schedule) -> Tensor:
    """Return the scheduled symmetric InfoNCE loss of a batch, (...) for (..., B, B).

    >>> from lib.schedulers import Fixed
    >>> similarity = torch.eye(4)
    >>> contrastive_loss(similarity, Fixed()(similarity, temperature=0.1)).item() < 1e-3
    True
    """
    return weighted_mean(info_nce(similarity, schedule.temperature), schedule)
