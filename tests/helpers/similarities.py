"""Similarity matrices to test losses and schedulers with."""

import torch
from torch.nn import functional as F


def random_similarity(seed: int, size: int, leading: tuple[int, ...] = ()) -> torch.Tensor:
    """Cosines of random unit vectors, (*leading, size, size), in double precision."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, *leading, size, 6, generator=generator, dtype=torch.float64)
    image, text = F.normalize(draws, dim=-1)
    return image @ text.mT


def assert_resumed(make):
    """Hold a scheduler with another's state, after five of eight steps, to give what it gives."""
    steps = [random_similarity(seed, 5).float() for seed in range(8)]
    whole, first, second = make(), make(), make()
    for step in steps:
        expected = whole(step, 0.1)
    for step in steps[:5]:
        first(step, 0.1)
    second.load_state_dict(first.state_dict())
    for step in steps[5:]:
        resumed = second(step, 0.1)
    for a, b in zip(expected, resumed, strict=True):
        assert torch.equal(a, b)
