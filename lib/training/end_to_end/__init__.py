"""Runs whose towers are trained with their heads, one at a time."""

from lib.training.end_to_end.material import Material, load_material
from lib.training.end_to_end.pool import checkpoint_path, train_runs

__all__ = ["Material", "checkpoint_path", "load_material", "train_runs"]
