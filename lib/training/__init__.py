"""From a list of run configurations to run records."""

from lib.training.distribute import TrainingError
from lib.training.lab import Lab
from lib.training.trainer import corpus_options, load_features, train, trained

__all__ = ["Lab", "TrainingError", "corpus_options", "load_features", "train", "trained"]
