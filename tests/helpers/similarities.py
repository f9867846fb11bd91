"""Similarity matrices to test losses and schedulers with."""

import torch
from torch.nn import functional as F


def random_similarity(seed: int, size: int, leading: tuple[int, ...] = ()) -> torch.Tensor:
    """Cosines of random unit vectors, (*leading, size, size), in double precision."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, *leading, size, 6, generator=generator, dtype=torch.float64)
    image, text = F.normalize(draws, dim=-1)
    return image @ text.mT
