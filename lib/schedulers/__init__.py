"""Schedulers set the loss weights and the temperature at each step: one signal, one actuator.

This package needs only torch and works on any number of leading batch axes.
"""

from .actuators import ACTUATORS, Schedule
from .scheduler import Fixed, Scheduler
from .signals import SIGNALS, Signal, entropy, margin, mean_variances, spread, variance
from .trace import Trace

__all__ = [
    "ACTUATORS",
    "SIGNALS",
    "Fixed",
    "Schedule",
    "Scheduler",
    "Signal",
    "Trace",
    "entropy",
    "margin",
    "mean_variances",
    "spread",
    "variance",
]
