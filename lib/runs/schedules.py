"""Configurations of schedules: schedulers, constants, replays and rivals. Each builds the module
that the runs of a stack share."""

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
    """Return the field ``name`` of R schedules, (R,), or None if a value and the default are None.

    >>> constants([GradNormConfig(alpha=1.5, step=0.5), GradNormConfig(alpha=2, step=1)], "alpha")
    tensor([1.5000, 2.0000])
    """
    values = [getattr(schedule, name) for schedule in schedules]
    values = [default if value is None else value for value in values]
    return None if None in values else torch.tensor(values, dtype=torch.float32)


class _Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sharing: ClassVar[tuple[str, ...]] = ()
    """Fields that must be equal for runs to share a module."""

    @staticmethod
    def build(schedules: Sequence[Any], steps: int) -> nn.Module:
        """Return the module that R schedules of one class share, for ``steps`` per epoch."""
        shape = {"batch_shape": (len(schedules),)}
        module: nn.Module = schedules[0]._module(partial(constants, schedules), steps, shape)
        return module

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        # For rivals that are losses: weights and temperature stay fixed.
        return Fixed()


class RivalConstants(_Schedule):
    """The constants of a rival.

    Attributes:
        name: The rival's name in the study.
        sets_temperature: Whether the rival sets the temperature.
        reads_info_nce: Whether the rival computes InfoNCE, or a loss in its place, itself.
    """

    name: ClassVar[str]
    sets_temperature: ClassVar[bool] = False
    reads_info_nce: ClassVar[bool] = False


class CosineConfig(RivalConstants):
    """:class:`lib.rivals.CosineTemperature`, with a period of ``period`` epochs."""

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
    """:class:`lib.rivals.UncertaintyWeights`, with a learning rate for the log-variances."""

    name = "uncertainty weighting"
    # Parameters of one module have one learning rate.
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
    """:class:`lib.rivals.DynamicWeightAverage`, with a period of ``period`` epochs."""

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
    """:class:`lib.rivals.IndividualTemperatures`, which start at the run's temperature."""

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
    """Constant weights of the two directions: ``weight_i2t`` and 2 - ``weight_i2t``."""

    weight_i2t: float = Field(gt=0, lt=2)

    def _module(self, constant: Callable[..., Any], steps: int, shape: dict[str, Any]) -> nn.Module:
        weights = [constant("weight_i2t"), constant("weight_t2i")]
        return Trace(torch.stack(weights, dim=-1)[:, None])

    @property
    def weight_t2i(self) -> float:
        """Weight of text to image, 2 - ``weight_i2t``."""
        return 2 - self.weight_i2t


class ReplayConfig(_Schedule):
    """Replays to a run what a scheduler set in a finished run.

    Attributes:
        of: The scheduler whose weights and temperature are replayed.
        whose: ``"own"``: of the run with the same seed; ``"other"``: of the run with the
            neighbouring seed, where 2k and 2k + 1 are neighbours.
        form: ``"path"``: step by step; ``"mean"``: the constant mean (geometric for temperatures);
            ``"surrogate"``: a random path with the same mean, variance and autocorrelation.
    """

    of: ScheduleConfig
    whose: Literal["own", "other"]
    form: Literal["path", "mean", "surrogate"]

    @model_validator(mode="after")
    def _is_recorded(self) -> "ReplayConfig":
        if self.of.actuator == "sample":
            raise ValueError("the weights of 'sample' are not recorded, so nothing can be replayed")
        return self
