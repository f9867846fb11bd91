"""Parameters that several notebooks share."""

from typing import Annotated, Literal

from pydantic import Field

from lib.chapters.shared.checking import Parameters

Positive = Annotated[float, Field(gt=0)]

Share = Annotated[float, Field(gt=0, lt=1)]

Count = Annotated[int, Field(ge=1)]

Rate = Annotated[float, Field(gt=0, le=1)]

Severity = Annotated[int, Field(ge=1, le=5)]


class CorpusOptions(Parameters):
    """Which images and captions, and what to do about a bad one."""

    corpus: Literal["scenes", "flickr8k"] = "scenes"
    flickr8k_root: str = ""
    on_bad_sample: Literal["error", "skip"] = "error"


class TowerOptions(Parameters):
    """Which pretrained towers give the features, and where they and the training run."""

    image_tower: str = Field("efficientnet-lite0@128", min_length=1)
    text_tower: str = Field("minilm", min_length=1)
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="one of auto, cpu, cuda, cuda:N",
    )


class TrainingOptions(Parameters):
    """How each run is trained; the seeds are 0 to ``seeds`` - 1."""

    seeds: int = Field(3, ge=2)
    batch_size: int = Field(128, ge=2)
    epochs: int = Field(15, ge=1)
    embedding_dim: int = Field(256, ge=1)
    weight_decay: float = Field(0.01, ge=0)


class TuningOptions(Parameters):
    """What the fixed baseline is tuned over, on validation; the same runs in every notebook."""

    tuning_seeds: int = Field(2, ge=1)
    train_images: int = Field(800, ge=2)
    temperatures: list[Positive] = Field([0.05, 0.085, 0.125, 0.2], min_length=1)
    learning_rates: list[Positive] = Field([1e-3, 3e-3], min_length=1)


class MethodOptions(TuningOptions):
    """What each method is tuned over; the same in every notebook, so that its runs are shared."""

    scheduled_temperatures: list[Positive] = Field([0.085, 0.125], min_length=1)
    gammas: list[float] = Field([1.0, 10.0], min_length=1)
    sample_gammas: list[float] = Field([-1.0, 1.0], min_length=1)
    variance_targets: list[Positive] = Field([1.0, 1.5, 1.75, 2.5], min_length=1)
    entropy_targets: list[Share] = Field([0.5, 0.6, 0.7, 0.8], min_length=1)
    spread_targets: list[Positive] = Field([5.0, 6.0, 8.0, 10.0], min_length=1)
    beta: float = Field(0.9, ge=0, lt=1)
    warmup: int = Field(0, ge=0)
    margin: float = Field(0.3, gt=0)
