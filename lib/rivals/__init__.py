"""Rivals of the study's schedulers, each as its paper has it, for the same similarities.

Those that set weights or a temperature are called as :class:`lib.schedulers.Scheduler` is. The
others need more than the similarities: :class:`GradNorm` the losses and the parameters they share,
:class:`IndividualTemperatures` which training pairs are in the batch. Rivals that are losses are in
:mod:`lib.losses`. Everything here depends on torch alone and works on any number of leading batch
axes.
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
