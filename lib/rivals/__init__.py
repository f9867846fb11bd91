"""Rivals of the study's schedulers, as their papers define them, for the same similarities.

Most are called like :class:`lib.schedulers.Scheduler`. :class:`GradNorm` needs the losses and the
parameters that they share, :class:`IndividualTemperatures` the indices of the batch's training
pairs. Rivals that are losses are in :mod:`lib.losses`. All work on any number of leading axes.
"""

from .cosine import CosineTemperature
from .gradnorm import GradNorm
from .individual import IndividualTemperatures
from .weights import AnalyticUncertaintyWeights, DynamicWeightAverage, UncertaintyWeights

__all__ = [
    "AnalyticUncertaintyWeights",
    "CosineTemperature",
    "DynamicWeightAverage",
    "GradNorm",
    "IndividualTemperatures",
    "UncertaintyWeights",
]
