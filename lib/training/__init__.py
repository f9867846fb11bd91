"""From a list of run configurations to run records."""

from lib.training.sweep import TrainingError, load_features, train

__all__ = ["TrainingError", "load_features", "train"]
