"""Parameters that several notebooks share; each description is the comment in their cells."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lib.chapters.shared.checking import Parameters
from lib.utils.names import OneOf

Positive = Annotated[float, Field(gt=0)]

Share = Annotated[float, Field(gt=0, lt=1)]

Count = Annotated[int, Field(ge=1)]

Several = Annotated[int, Field(ge=2)]

Rate = Annotated[float, Field(gt=0, le=1)]

Severity = Annotated[int, Field(ge=1, le=5)]

Signal = Annotated[str, OneOf("lib.schedulers:SIGNALS")]

Actuator = Annotated[str, OneOf("lib.schedulers:ACTUATORS")]


class CorpusOptions(Parameters):
    """Which images and captions, and what to do about a bad one."""

    corpus: Annotated[str, OneOf("lib.datasets:CORPORA")] = "scenes"
    """images and captions; scenes are drawn, so that they need no folder"""
    corpus_root: str = ""
    """folder of the corpus; empty: the usual places, $FLICKR8K_ROOT first"""
    on_bad_sample: Literal["error", "skip"] = "error"
    """error stops at a missing or damaged sample, skip drops it"""


class TowerOptions(Parameters):
    """The pretrained towers that give the features, and the device."""

    image_tower: str = Field("efficientnet-lite0@128", min_length=1)
    """preset or timm name; @N sets the input size in pixels"""
    text_tower: str = Field("minilm", min_length=1)
    """preset or transformers name"""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda", "cuda:N"]
    )
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1"""


class TrainingOptions(Parameters):
    """How each run is trained."""

    seeds: int = Field(3, ge=2)
    """paired seeds: 0 to seeds - 1"""
    batch_size: int = Field(128, ge=2)
    """pairs in a batch"""
    epochs: int = Field(15, ge=1)
    """passes over the subset; validation chooses among them"""
    embedding_dim: int = Field(256, ge=1)
    """length of an embedding"""
    weight_decay: float = Field(0.01, ge=0)
    """of AdamW, on weights alone"""


class TuningOptions(Parameters):
    """What the baselines are tuned over, on validation; the same runs in every notebook."""

    tuning_seeds: int = Field(2, ge=1)
    """the first so many of them choose the constants, on validation"""
    train_images: int = Field(800, ge=2)
    """training images, drawn by the seed"""
    temperatures: list[Positive] = Field([0.05, 0.085, 0.125, 0.2], min_length=1)
    """τ, or the start of a learned one"""
    learning_rates: list[Positive] = Field([1e-3, 3e-3], min_length=1)
    """tuned on the fixed loss, then the same for every method"""
    ridges: list[Positive] = Field([3.0, 10.0], min_length=1)
    """CCA: ridge of the images' covariance; the captions' has a tenth"""
    powers: list[Annotated[float, Field(ge=0)]] = Field([0.5, 1.0], min_length=1)
    """CCA: power of the correlations by which a direction counts"""
    margin: float = Field(0.3, gt=0)
    """points of recall within which two methods count as equivalent"""


class MethodOptions(TuningOptions):
    """What each method is tuned over; the same in every notebook, so that its runs are shared."""

    scheduled_temperatures: list[Positive] = Field([0.085, 0.125], min_length=1)
    """τ of a scheduled loss"""
    gammas: list[float] = Field([1.0, 10.0], min_length=1)
    """direction and magnitude: exponents of the signal"""
    targets: dict[Signal, Annotated[list[Positive], Field(min_length=1)]] = Field(
        {
            "variance": [1.0, 1.5, 1.75, 2.5],
            "entropy": [0.5, 0.6, 0.7, 0.8],
            "spread": [5.0, 6.0, 8.0, 10.0],
        },
        min_length=1,
    )
    """sharpness: sd of the logits, mean entropy over log B, mean range"""
    beta: float = Field(0.9, ge=0, lt=1)
    """smoothing of the signal"""
    warmup: int = Field(0, ge=0)
    """steps before a scheduler acts"""

    @field_validator("targets")
    @classmethod
    def _can_be_held(cls, targets: dict[str, list[float]]) -> dict[str, list[float]]:
        from lib.schedulers import Scheduler

        for signal, values in targets.items():
            for value in values:
                try:
                    Scheduler(signal, "sharpness", target=value)
                except ValueError as error:
                    raise PydanticCustomError("target", "{why}", {"why": str(error)}) from error
        return targets


class SampleOptions(Parameters):
    """What ``sample`` is tuned over."""

    sample_gammas: list[float] = Field([-1.0, 1.0], min_length=1)
    """sample: exponents; below 0, less signal means more weight"""
