"""Runs whose towers are trained with their heads, one at a time."""

import torch

from lib.datasets import Corpus
from lib.training.towers.inputs import Material
from lib.training.towers.pool import checkpoint_path, train_runs

__all__ = ["Material", "checkpoint_path", "load_material", "train_runs"]


def load_material(
    corpus: Corpus, trained: str, image_tower: str, text_tower: str, device: torch.device
) -> Material:
    """Load what runs of one kind train on.

    Args:
        corpus: Images and captions.
        trained: As :class:`lib.runs.TowersConfig` has it.
        image_tower: A run's.
        text_tower: A run's.
        device: Where it trains.

    Raises:
        ValueError: The towers can't be trained in this way.
    """
    if trained == "from scratch":
        from lib.training.towers.scratch import load_scratch

        return load_scratch(corpus, image_tower, text_tower, device)
    from lib.training.towers.last_blocks import load_last_blocks

    return load_last_blocks(corpus, image_tower, text_tower, device)
