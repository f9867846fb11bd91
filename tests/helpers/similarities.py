"""Similarity matrices for tests of losses and schedulers, and checks of rules with a state."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F


def random_similarity(seed: int, size: int, leading: tuple[int, ...] = ()) -> torch.Tensor:
    """Return cosines of random unit vectors, (*leading, size, size), in double precision."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, *leading, size, 6, generator=generator, dtype=torch.float64)
    image, text = F.normalize(draws, dim=-1)
    return image @ text.mT


def unit_pairs(seed: int = 0, size: int = 6, width: int = 8) -> torch.Tensor:
    """Return random embeddings of unit length, (2, size, width): images, then captions."""
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2, size, width, generator=draws), dim=-1)


def extreme(kind: str, size: int) -> torch.Tensor:
    """Return similarities of a collapsed model, of a perfect one, or of its opposite."""
    perfect = 2 * torch.eye(size) - 1
    return {"equal": torch.ones(size, size), "identity": perfect, "opposite": -perfect}[kind]


def assert_identical(one, other) -> None:
    """Check that tensors, or tuples of tensors, are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        one, other = (one,), (other,)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def assert_resumes(make: Callable, steps: Sequence[tuple], stop: int) -> None:
    """Check that a new rule with the state after ``stop`` steps continues to the same bits."""
    whole, first, second = (make() for _ in range(3))
    expected = [whole(*step) for step in steps]
    for step in steps[:stop]:
        first(*step)
    second.load_state_dict(first.state_dict())
    for step, result in zip(steps[stop:], expected[stop:], strict=True):
        assert_identical(second(*step), result)


def assert_stack_is_its_runs(stacked, make: Callable, steps, leading: tuple[int, ...]) -> None:
    """Check that a stack gives each run the bits of ``make(place)`` on the run's own steps."""
    for step in steps:
        together = stacked(*step)
    for place in itertools.product(*map(range, leading)):
        alone = make(place)
        for step in steps:
            single = alone(*(part[place] for part in step))
        tensor = isinstance(together, torch.Tensor)
        assert_identical(together[place] if tensor else [part[place] for part in together], single)
        for name, value in stacked.state_dict().items():
            if value.shape[: len(leading)] == leading:
                assert torch.equal(value[place], alone.state_dict()[name])
