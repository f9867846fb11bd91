"""Random generators per purpose, derived from one root seed.

A new draw for one purpose does not change the numbers of another.
"""

import hashlib

import numpy as np
import torch


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return the NumPy generator of a purpose.

    Args:
        seed: The root seed.
        purpose: Names the draws, such as ``"batch order", epoch``.

    >>> int(generator(0, "order", 1).integers(10)) == int(generator(0, "order", 1).integers(10))
    True
    """
    return np.random.default_rng(np.random.SeedSequence(_entropy(seed, purpose)))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return the torch CPU generator of a purpose; its draws do not depend on the device."""
    state = np.random.SeedSequence(_entropy(seed, purpose)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _entropy(seed: int, purpose: tuple[str | int, ...]) -> list[int]:
    digest = hashlib.sha256(repr(purpose).encode()).digest()
    return [seed, int.from_bytes(digest[:8], "little")]
