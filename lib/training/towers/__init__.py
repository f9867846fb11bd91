"""Runs whose towers are trained with their heads, one at a time."""

import torch

from lib.datasets import Corpus
from lib.training.towers.inputs import TowerInputs
from lib.training.towers.last_blocks import load_last_blocks
from lib.training.towers.pool import checkpoint_path, train_runs
from lib.training.towers.scratch import load_scratch

__all__ = ["TowerInputs", "checkpoint_path", "load_inputs", "train_runs"]


def load_inputs(
    corpus: Corpus, trained: str, image_tower: str, text_tower: str, device: torch.device
) -> TowerInputs:
    """Load the images and captions of a corpus as the towers of runs read them.

    Args:
        corpus: Images and captions.
        trained: As in :class:`lib.runs.TowersConfig`.
        image_tower, text_tower: Names, as in :class:`lib.runs.RunConfig`.
        device: Where the runs train.

    Raises:
        ValueError: The towers can't be trained in this way.
    """
    load = load_scratch if trained == "from scratch" else load_last_blocks
    return load(corpus, image_tower, text_tower, device)
