"""What is scheduled in a run: schedulers, constants, replays and rivals, as configurations.

Each configuration builds the module that it configures, for all runs of a stack that share one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from lib.rivals import (
    AnalyticUncertaintyWeights,
    CosineTemperature,
    DynamicWeightAverage,
    UncertaintyWeights,
)
from lib.schedulers import SIGNALS, Fixed, Scheduler, Trace
from lib.utils.names import OneOf


def constants(schedules: Sequence[Any], name: str, default: float | None = None) -> Any:
    """Return a constant of R schedules by its name, (R,); None if one has neither it nor a default.

    >>> constants([GradNormConfig(alpha=1.5, step=0.5), GradNormConfig(alpha=2, step=1)], "alpha")
    tensor([1.5000, 2.0000])
    """
    values = [getattr(schedule, name) for schedule in schedules]
    values = [default if value is None else value for value in values]
    return None if None in values else torch.tensor(values, dtype=torch.float32)


class _Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sharing: ClassVar[tuple[str, ...]] = ()
    """Fields that runs must have in common to share a module."""

    @staticmethod
    def build(schedules: Sequence[Any], steps: int) -> nn.Module:
        """Return the module that R schedules of one class share, for so many steps per epoch."""
        constant = partial(constants, schedules)
        shape = {"batch_shape": (len(schedules),)}
        module: nn.Module = schedules[0]._module(constant, steps, shape)
        return module

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        # Rules that act on the losses leave weights and temperature as they are.
        return Fixed()


class RivalConstants(_Schedule):
    """The constants of a rival that is a schedule.

    Attributes:
        name: How the study names it.
        sets_temperature: Whether it owns the temperature.
        reads_info_nce: Whether it computes InfoNCE, or a loss in its place, itself.
    """

    name: ClassVar[str]
    sets_temperature: ClassVar[bool] = False
    reads_info_nce: ClassVar[bool] = False


class CosineConfig(RivalConstants):
    """:class:`lib.rivals.CosineTemperature`: a swing of ``period`` epochs between two bounds."""

    name = "cosine temperature"
    sets_temperature = True

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    period: float = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "CosineConfig":
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} must not be above high = {self.high:g}")
        return self

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        period = steps * constant("period")
        return CosineTemperature(constant("low"), constant("high"), period, **shape)


class UncertaintyConfig(RivalConstants):
    """:class:`lib.rivals.UncertaintyWeights`: log-variances with a learning rate of their own."""

    name = "uncertainty weighting"
    # A learning rate belongs to a whole group of the optimiser.
    sharing = ("rate",)

    rate: float = Field(gt=0)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        return UncertaintyWeights(**shape)


class AnalyticUncertaintyConfig(RivalConstants):
    """:class:`lib.rivals.AnalyticUncertaintyWeights`."""

    name = "analytic uncertainty"
    reads_info_nce = True

    softness: float = Field(gt=0)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        return AnalyticUncertaintyWeights(constant("softness"), **shape)


class DynamicWeightAverageConfig(RivalConstants):
    """:class:`lib.rivals.DynamicWeightAverage`: over a ``period`` of whole epochs."""

    name = "dynamic weight average"
    reads_info_nce = True

    softness: float = Field(gt=0)
    period: int = Field(ge=1)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        period = steps * constant("period")
        return DynamicWeightAverage(constant("softness"), period=period, **shape)


class GradNormConfig(RivalConstants):
    """:class:`lib.rivals.GradNorm`, on the last weights of both heads."""

    name = "GradNorm"

    alpha: float = Field(ge=0)
    step: float = Field(gt=0)


class IndividualTemperatureConfig(RivalConstants):
    """:class:`lib.rivals.IndividualTemperatures`, all starting at the run's temperature."""

    name = "individual temperatures"
    sets_temperature = True
    reads_info_nce = True

    rho: float = Field(gt=0)
    step: float = Field(gt=0)


INDIVIDUAL_BOUNDS = (0.005, 1.0)
"""Least and greatest individual temperature."""

RivalConfig = (
    CosineConfig
    | UncertaintyConfig
    | AnalyticUncertaintyConfig
    | DynamicWeightAverageConfig
    | GradNormConfig
    | IndividualTemperatureConfig
)


class ScheduleConfig(_Schedule):
    """A scheduler: the arguments of :class:`lib.schedulers.Scheduler`."""

    sharing = ("signal", "actuator")

    signal: Annotated[str, OneOf("lib.schedulers:SIGNALS")]
    actuator: Annotated[str, OneOf("lib.schedulers:ACTUATORS")]
    gamma: float = 1.0
    beta: float = Field(default=0.9, ge=0, lt=1)
    warmup: int = Field(default=0, ge=0)
    target: float | None = Field(default=None, gt=0)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        return Scheduler(
            self.signal,
            self.actuator,
            gamma=constant("gamma"),
            beta=constant("beta"),
            warmup=constant("warmup").long(),
            target=constant("target", SIGNALS[self.signal].default_target),
            **shape,
        )


class ConstantConfig(_Schedule):
    """Weights of the two directions that never change: ``weight_i2t`` and 2 minus it."""

    weight_i2t: float = Field(gt=0, lt=2)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        weights = [constant("weight_i2t"), constant("weight_t2i")]
        return Trace(torch.stack(weights, dim=-1)[:, None])

    @property
    def weight_t2i(self) -> float:
        """The other weight."""
        return 2 - self.weight_i2t


class ReplayConfig(_Schedule):
    """What a scheduler set in a finished run, played to a run that the scheduler does not see.

    Attributes:
        of: The scheduler whose weights and temperature are played.
        whose: ``"own"``: of the run with the same seed; ``"other"``: of its neighbour, the seeds
            2k and 2k + 1 being each other's.
        form: ``"path"``: step by step; ``"mean"``: its mean, constant (of a temperature, the
            geometric mean); ``"surrogate"``: a random path with the same mean, variance and
            autocorrelation.
    """

    of: ScheduleConfig
    whose: Literal["own", "other"]
    form: Literal["path", "mean", "surrogate"]

    @model_validator(mode="after")
    def _is_recorded(self) -> "ReplayConfig":
        if self.of.actuator == "sample":
            raise ValueError("the weights of 'sample' are not recorded, so nothing can be replayed")
        return self
