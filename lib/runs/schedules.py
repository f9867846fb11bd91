"""What is scheduled in a run: schedulers, constants, replays and rivals, as configurations."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib.utils.names import OneOf


class RivalConstants(BaseModel):
    """The constants of a rival that is a schedule.

    Attributes:
        name: How the study names it.
        sets_temperature: Whether it owns the temperature.
        reads_info_nce: Whether it computes InfoNCE, or a loss in its place, itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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


class UncertaintyConfig(RivalConstants):
    """:class:`lib.rivals.UncertaintyWeights`: log-variances with a learning rate of their own."""

    name = "uncertainty weighting"

    rate: float = Field(gt=0)


class AnalyticUncertaintyConfig(RivalConstants):
    """:class:`lib.rivals.AnalyticUncertaintyWeights`."""

    name = "analytic uncertainty"
    reads_info_nce = True

    softness: float = Field(gt=0)


class DynamicWeightAverageConfig(RivalConstants):
    """:class:`lib.rivals.DynamicWeightAverage`: over a ``period`` of whole epochs."""

    name = "dynamic weight average"
    reads_info_nce = True

    softness: float = Field(gt=0)
    period: int = Field(ge=1)


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


class ScheduleConfig(BaseModel):
    """A scheduler: the arguments of :class:`lib.schedulers.Scheduler`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    signal: Annotated[str, OneOf("lib.schedulers:SIGNALS")]
    actuator: Annotated[str, OneOf("lib.schedulers:ACTUATORS")]
    gamma: float = 1.0
    beta: float = Field(default=0.9, ge=0, lt=1)
    warmup: int = Field(default=0, ge=0)
    target: float | None = Field(default=None, gt=0)


class ConstantConfig(BaseModel):
    """Weights of the two directions that never change: ``weight_i2t`` and 2 minus it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight_i2t: float = Field(gt=0, lt=2)


class ReplayConfig(BaseModel):
    """What a scheduler set in a finished run, played to a run that the scheduler does not see.

    Attributes:
        of: The scheduler whose weights and temperature are played.
        whose: ``"own"``: of the run with the same seed; ``"other"``: of its neighbour, the seeds
            2k and 2k + 1 being each other's.
        form: ``"path"``: step by step; ``"mean"``: its mean, constant (of a temperature, the
            geometric mean); ``"surrogate"``: a random path with the same mean, variance and
            autocorrelation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of: ScheduleConfig
    whose: Literal["own", "other"]
    form: Literal["path", "mean", "surrogate"]

    @model_validator(mode="after")
    def _is_recorded(self) -> "ReplayConfig":
        if self.of.actuator == "sample":
            raise ValueError("the weights of 'sample' are not recorded, so nothing can be replayed")
        return self
