"""What a run's schedule may be beside the study's own: each rival of ``lib.rivals`` by constants.

Their names tell which rival is meant, so none of them has a default. Periods count epochs, as in
the papers.
"""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Constants(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CosineConfig(_Constants):
    """:class:`lib.rivals.CosineTemperature`: a swing of ``period`` epochs between two bounds."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    period: float = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "CosineConfig":
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} must not be above high = {self.high:g}")
        return self


class UncertaintyConfig(_Constants):
    """:class:`lib.rivals.UncertaintyWeights`: log-variances with a learning rate of their own."""

    rate: float = Field(gt=0)


class AnalyticUncertaintyConfig(_Constants):
    """:class:`lib.rivals.AnalyticUncertaintyWeights`."""

    softness: float = Field(gt=0)


class DynamicWeightAverageConfig(_Constants):
    """:class:`lib.rivals.DynamicWeightAverage`: over a ``period`` of whole epochs."""

    softness: float = Field(gt=0)
    period: int = Field(ge=1)


class GradNormConfig(_Constants):
    """:class:`lib.rivals.GradNorm`, on the last weights of both heads."""

    alpha: float = Field(ge=0)
    step: float = Field(gt=0)


class IndividualTemperatureConfig(_Constants):
    """:class:`lib.rivals.IndividualTemperatures`, all starting at the run's temperature."""

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

RIVAL_NAMES: dict[type[BaseModel], str] = {
    CosineConfig: "cosine temperature",
    UncertaintyConfig: "uncertainty weighting",
    AnalyticUncertaintyConfig: "analytic uncertainty",
    DynamicWeightAverageConfig: "dynamic weight average",
    GradNormConfig: "GradNorm",
    IndividualTemperatureConfig: "individual temperatures",
}
"""How the study names each rival that is a schedule."""

SETS_TEMPERATURE = (CosineConfig, IndividualTemperatureConfig)
"""Those that own the temperature."""

READS_INFO_NCE = (
    AnalyticUncertaintyConfig,
    DynamicWeightAverageConfig,
    IndividualTemperatureConfig,
)
"""Those that compute InfoNCE, or a loss in its place, themselves."""
