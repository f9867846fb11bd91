"""From a list of run configurations to run records."""

from lib.training.distribute import TrainingError
from lib.training.lab import Lab
from lib.training.trainer import load_features, retrain, train

__all__ = ["Lab", "TrainingError", "load_features", "retrain", "train"]
