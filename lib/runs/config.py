"""Everything that determines a run's result."""

import hashlib
import json
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib.losses import LOSSES
from lib.runs.schedules import (
    INDIVIDUAL_BOUNDS,
    ConstantConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    ReplayConfig,
    RivalConfig,
    RivalConstants,
    ScheduleConfig,
)
from lib.utils.names import OneOf

RESULTS_VERSION = 1
"""Raise this when a change to the code changes the numbers of a run: older records are then unused.
A test holds the numbers of a small run, so that such a change is noticed."""
LARGEST = 1e9
"""Rates above it, and temperatures below its inverse, leave the range of single precision."""

TrainedTowers = Literal["from scratch", "last blocks"]
TRAINED_TOWERS = get_args(TrainedTowers)
"""The ways to train towers."""
FROM_PARAMETERS = (
    *("corpus", "on_bad_sample", "image_tower", "text_tower"),
    *("batch_size", "epochs", "embedding_dim", "weight_decay"),
)
"""The fields for which every notebook that trains has a parameter of the same name."""


class NoiseConfig(BaseModel):
    """Noise in the training pairs; validation stays clean.

    Attributes:
        kind: ``"mismatched"`` permutes the captions of the noisy pairs; ``"captions"`` and
            ``"images"`` perturb the noisy ones as :mod:`lib.noise` does.
        rate: Share of pairs, captions or images that are noisy, drawn by the run's seed; at one
            seed a higher rate adds to those of a lower one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["mismatched", "captions", "images"]
    rate: float = Field(gt=0, le=1)


class CanonicalConfig(BaseModel):
    """Heads by canonical correlation analysis of the training pairs: the arguments of
    :func:`lib.models.canonical_heads`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image_ridge: float = Field(gt=0, le=LARGEST)
    text_ridge: float = Field(gt=0, le=LARGEST)
    power: float = Field(default=1.0, ge=0, le=100)


class TowersConfig(BaseModel):
    """Towers that are trained together with their heads.

    Attributes:
        trained: ``"last blocks"``: the last block of each pretrained tower; ``"from scratch"``: a
            residual network on pixels and a recurrent one on words, from random weights, named
            ``resnet18@PIXELS`` and ``gru`` or ``lstm``.
        learning_rate: Learning rate of the towers; None takes that of the heads.
        augmentation: ``"crop and flip"`` shifts an image by up to an eighth of its side and mirrors
            every second one.
        least_count: Words that are rarer in the training captions count as unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trained: TrainedTowers
    learning_rate: float | None = Field(default=None, gt=0, le=LARGEST)
    augmentation: Literal["none", "crop and flip"] = "none"
    least_count: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _options_suit_the_training(self) -> "TowersConfig":
        if self.trained == "last blocks" and (self.augmentation != "none" or self.least_count > 1):
            raise ValueError(
                "the last blocks start from what the frozen part gives for each image and caption, "
                "so augmentation must be 'none' and least_count 1"
            )
        return self


class RunConfig(BaseModel):
    """Everything that determines a run's result, except the corpus's content and the code.

    A run's id hashes what differs from these defaults, so adding a field whose default keeps the
    old behaviour leaves existing ids unchanged. Changing a default needs a new
    :data:`RESULTS_VERSION`.

    A batch has ``batch_size`` images, each with ``captions_at_once`` captions, drawn from the
    image's first ``captions_per_image`` or from all. With several at once the loss ``info_nce`` is
    the mean over as many batches of one caption per image, so that captions of one image are never
    each other's negatives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    corpus: str = "scenes"
    on_bad_sample: Literal["error", "skip"] = "error"
    image_tower: str = "efficientnet-lite0"
    text_tower: str = "minilm"
    train_images: int = Field(1000, ge=2)
    captions_per_image: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    embedding_dim: int = Field(256, ge=1)
    hidden_layers: int = Field(0, ge=0)
    hidden_features: int = Field(512, ge=1)
    text_hidden_layers: int | None = Field(None, ge=0)
    centre: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(128, ge=2)
    epochs: int = Field(20, ge=0)
    """Passes over the subset; 0 leaves the heads as ``start`` sets them."""
    learning_rate: float = Field(1e-3, gt=0, le=LARGEST)
    learning_rate_decay: Literal["none", "cosine"] = "none"
    weight_decay: float = Field(0.01, ge=0, le=LARGEST)
    temperature: float = Field(0.1, ge=1 / LARGEST, le=LARGEST)
    learn_temperature: bool = False
    schedule: ScheduleConfig | ConstantConfig | ReplayConfig | RivalConfig | None = None
    loss: Annotated[str, OneOf("lib.losses:LOSSES")] = "info_nce"
    loss_constant: float | None = None
    learn_bias: bool = False
    captions_at_once: int = Field(1, ge=1)
    noise: NoiseConfig | None = None
    start: CanonicalConfig | None = None
    """The heads before the first step; None draws them by the seed."""
    towers: TowersConfig | None = None
    """Towers to train; None keeps both frozen."""

    @model_validator(mode="after")
    def _options_suit_the_towers(self) -> "RunConfig":
        if self.towers and self.noise and self.noise.kind != "mismatched":
            raise ValueError(
                f"noise in the {self.noise.kind} is for frozen towers; with trained ones use "
                "'mismatched' or none"
            )
        if self.towers and (self.captions_at_once > 1 or isinstance(self.schedule, GradNormConfig)):
            raise ValueError(
                "several captions at once and GradNorm are for frozen towers; use another loss, or "
                "leave out towers"
            )
        return self

    @model_validator(mode="after")
    def _options_suit_the_start(self) -> "RunConfig":
        if self.start is None:
            if self.epochs == 0:
                raise ValueError("epochs = 0 needs a start: heads that are drawn know nothing")
            return self
        if self.towers or self.hidden_layers or self.text_hidden_layers or not self.centre:
            raise ValueError(
                "a start is for linear heads over centred features of frozen towers: leave out "
                "towers, hidden_layers, text_hidden_layers and centre"
            )
        return self

    @model_validator(mode="after")
    def _constants_suit_the_loss(self) -> "RunConfig":
        LOSSES[self.loss].check(self.loss_constant)
        if self.learn_bias and self.loss != "sigmoid":
            raise ValueError(f"learn_bias is for the loss sigmoid; {self.loss} has no bias")
        several = self.captions_at_once > 1
        if not several and self.loss == "multi_positive":
            raise ValueError(
                "captions_at_once must be 2 or more with the loss multi_positive; it is "
                f"{self.captions_at_once}"
            )
        if several and self.loss not in ("multi_positive", "info_nce"):
            raise ValueError(
                "captions_at_once must be 1 with any loss but multi_positive and info_nce: to the "
                f"others an image's second caption is a negative; with {self.loss} it is "
                f"{self.captions_at_once}"
            )
        if several and self.schedule is not None:
            raise ValueError(
                f"captions_at_once must be 1 with a schedule; with {self.method} it is "
                f"{self.captions_at_once}"
            )
        if (
            isinstance(self.schedule, RivalConstants)
            and self.schedule.reads_info_nce
            and self.loss != "info_nce"
        ):
            raise ValueError(f"{self.method} is made for the loss info_nce, not for {self.loss}")
        return self

    @model_validator(mode="after")
    def _one_owner_of_the_temperature(self) -> "RunConfig":
        schedule = self.schedule.of if isinstance(self.schedule, ReplayConfig) else self.schedule
        sharp = isinstance(schedule, ScheduleConfig) and schedule.actuator == "sharpness"
        if self.learn_temperature and sharp:
            raise ValueError("a temperature is either learned or set by 'sharpness', not both")
        sets = isinstance(schedule, RivalConstants) and schedule.sets_temperature
        if self.learn_temperature and sets:
            raise ValueError(f"a temperature is either learned or set by {self.method}, not both")
        if isinstance(schedule, IndividualTemperatureConfig):
            low, high = INDIVIDUAL_BOUNDS
            if not low <= self.temperature <= high:
                raise ValueError(
                    f"temperature = {self.temperature:g} lies outside {low:g} to {high:g}, within "
                    f"which {self.method} move"
                )
        return self

    @classmethod
    def of(cls, parameters: BaseModel, **changes: Any) -> "RunConfig":
        """Take :data:`FROM_PARAMETERS` from a notebook's ``parameters``, then apply ``changes``."""
        return cls(**{name: getattr(parameters, name) for name in FROM_PARAMETERS} | changes)

    @property
    def run_id(self) -> str:
        """The run's id in the store: a hash of this configuration and the results version."""
        return self.run_id_at(RESULTS_VERSION)

    def run_id_at(self, results_version: int) -> str:
        """Return the id that the run has, or had, at a results version."""
        canonical = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(f"{results_version} {canonical}".encode()).hexdigest()[:20]

    @property
    def method(self) -> str:
        """The study's name of the method: ``fixed``, ``learned τ``, ``variance × …``, ``CCA``."""
        if self.start is not None:
            return f"CCA, then {self._trained_by}" if self.epochs else "CCA"
        return self._trained_by

    @property
    def _trained_by(self) -> str:
        match self.schedule:
            case ScheduleConfig(signal=signal, actuator=actuator):
                return f"{signal} × {actuator}"
            case ReplayConfig(of=of, whose=whose, form=form):
                return f"{whose} {form} of {of.signal} × {of.actuator}"
            case ConstantConfig(weight_i2t=weight):
                return f"constant w = {weight:g}"
            case None if self.loss != "info_nce":
                return self.loss
            case None:
                kind = "learned τ" if self.learn_temperature else "fixed"
                return f"{kind}, more captions" if self.captions_at_once > 1 else kind
            case rival:
                return rival.name

    @property
    def scheduler(self) -> ScheduleConfig | None:
        """The scheduler, or None if no signal drives an actuator in this run."""
        return self.schedule if isinstance(self.schedule, ScheduleConfig) else None

    @property
    def source(self) -> "RunConfig | None":
        """The run whose schedule this one replays, or None."""
        if not isinstance(self.schedule, ReplayConfig):
            return None
        seed = self.seed if self.schedule.whose == "own" else self.seed ^ 1
        return self.model_copy(update={"schedule": self.schedule.of, "seed": seed})

    def with_seed(self, seed: int) -> "RunConfig":
        """Return the same configuration at another seed."""
        return self.model_copy(update={"seed": seed})

    def with_steps(self, least: int) -> "RunConfig":
        """Return the same configuration with enough epochs for ``least`` steps."""
        per_epoch = max(1, self.train_images // self.batch_size)
        return self.model_copy(update={"epochs": max(self.epochs, -(-least // per_epoch))})

    def with_steps_like(self, other: "RunConfig") -> "RunConfig":
        """Return the same configuration with about as many steps as another one.

        Fewer batches per epoch get more epochs, up to three times the other's; more batches get
        fewer epochs, but at least five. An incomplete batch counts as one.
        """
        steps = other.epochs * math.ceil(other.train_images / other.batch_size)
        per_epoch = math.ceil(self.train_images / self.batch_size)
        least = max(min(5, other.epochs), math.ceil(steps / per_epoch))
        return self.model_copy(update={"epochs": min(3 * other.epochs, least)})
