"""What sets the loss weights and the temperature at each step: one signal drives one actuator.

Everything here depends on torch alone and works on any number of leading batch axes.
"""

from lib.schedulers.actuators import ACTUATORS, Schedule
from lib.schedulers.moments import mean_variances
from lib.schedulers.scheduler import DEFAULT_TARGETS, Fixed, Scheduler
from lib.schedulers.signals import SIGNALS, entropy, margin, spread, variance
from lib.schedulers.trace import Trace

__all__ = [
    "ACTUATORS",
    "DEFAULT_TARGETS",
    "SIGNALS",
    "Fixed",
    "Schedule",
    "Scheduler",
    "Trace",
    "entropy",
    "margin",
    "mean_variances",
    "spread",
    "variance",
]
