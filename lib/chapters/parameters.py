"""The parameters of each notebook: their names, types, bounds and defaults, checked in one place.

Every notebook calls :func:`check` in the cell after its ``parameters`` cell. Papermill writes
whatever it is given into a notebook, so this is where text such as ``"1e-3"`` or ``"false"``
becomes a number or a Boolean, and where everything that could mean something else is refused.
The defaults are those of the quick profile. To add a parameter, add one line to its model here and
one to the notebook's ``parameters`` cell.
"""

from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lib.chapters.shared.checking import ParameterError, Parameters, _explain, _is_parameter
from lib.chapters.shared.options import (
    CorpusOptions,
    Count,
    MethodOptions,
    Positive,
    Rate,
    Severity,
    Share,
    TowerOptions,
    TrainingOptions,
    TuningOptions,
)
from lib.utils.names import (
    Actuator,
    CaptionNoise,
    Condition,
    Factor,
    ImageNoise,
    Method,
    Signal,
    TrainedTowers,
)
from lib.utils.text import did_you_mean


class CorpusParameters(TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``corpus``: the corpus and what low data means."""

    learning_rate: float = Field(3e-3, gt=0)
    train_sizes: list[Count] = Field([100, 200, 400, 800], min_length=1)
    temperature: float = Field(0.1, gt=0)
    least_steps: int = Field(80, ge=0)


class BaselineParameters(TuningOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``baseline``: the fixed weighting, tuned."""


class MainComparisonParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``main-comparison``: scheduled weights against fixed ones."""

    signals: list[Signal] = Field(["variance", "entropy", "spread"], min_length=1)
    actuators: list[Actuator] = Field(
        ["direction", "magnitude", "sharpness", "sample"], min_length=1
    )


class SignalsParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``signals``: what the scheduler sees, and what it would take to matter."""

    swept_gammas: list[float] = Field([-300.0, 300.0], min_length=1)
    conditions: list[Condition] = Field(
        ["default", "uncentred features", "40 % mismatched pairs"], min_length=1
    )
    condition_gamma: float = 10.0


class ControlsParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``controls``: whether a gain is due to adapting."""

    constant_weights: list[Annotated[float, Field(gt=0, lt=2)]] = Field([0.5, 1.5], min_length=1)
    strong_gamma: float = 300.0
    decayed_rates: list[Positive] = Field([3e-3, 1e-2], min_length=1)


class ConvergenceParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``convergence``: how soon a run is as good as the fixed loss gets."""

    margin: float = Field(0.25, gt=0)


class NoiseParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``noise``: what a method loses to noise, in training and at test."""

    methods: list[str] = Field(
        ["fixed", "variance × direction", "variance × sharpness"], min_length=2
    )
    robust_powers: list[Rate] = Field([0.1, 0.5], min_length=1)
    mismatched_rates: list[Rate] = Field([0.4], min_length=1)
    caption_rates: list[Rate] = Field([0.8], min_length=1)
    image_rates: list[Rate] = Field([0.8], min_length=1)
    caption_noise: list[CaptionNoise] = Field(["typing errors"], min_length=1)
    image_noise: list[ImageNoise] = Field(["Gaussian noise"], min_length=1)
    severities: list[Severity] = Field([3], min_length=1)


class SensitivityParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``sensitivity``: the effect against n, and one factor at a time."""

    train_sizes: list[Annotated[int, Field(ge=2)]] = Field([200, 800], min_length=1)
    least_steps: int = Field(30, ge=0)
    decayed_rates: list[Positive] = Field([3e-3, 1e-2], min_length=1)
    caption_counts: list[Annotated[int, Field(ge=2)]] = Field([2, 5], min_length=1)
    factors: list[Factor] = Field(["temperature", "captions an image"], min_length=1)
    factor_seeds: int = Field(3, ge=2)
    factor_gamma: float = 10.0


class EmbeddingsParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``embeddings``: how the trained embeddings lie and cluster."""

    margin: float = Field(1.0, gt=0)
    methods: list[Method] = Field(["variance × direction", "variance × sharpness"], min_length=1)
    mapped: list[Method] = Field(["variance × direction", "variance × sharpness"], min_length=1)
    map_seeds: int = Field(2, ge=1)
    map_images: int = Field(120, ge=10)
    perplexities: list[Positive] = Field([10.0, 30.0], min_length=1)
    random_starts: int = Field(1, ge=0)
    curve_seeds: int = Field(2, ge=2)


class EndToEndParameters(TowerOptions, CorpusOptions):
    """The notebook ``end-to-end``: towers that are trained with their heads."""

    settings: list[TrainedTowers] = Field(["from scratch", "last blocks"], min_length=1)
    signals: list[Signal] = Field(["variance", "entropy"], min_length=1)
    seeds: int = Field(2, ge=2)
    tuning_seeds: int = Field(1, ge=1)
    temperatures: list[Positive] = Field([0.1], min_length=1)
    gammas: list[float] = Field([10.0], min_length=1)
    beta: float = Field(0.9, ge=0, lt=1)
    warmup: int = Field(0, ge=0)
    batch_size: int = Field(64, ge=2)
    embedding_dim: int = Field(256, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    train_images: int = Field(200, ge=2)
    epochs: int = Field(2, ge=1)
    frozen_epochs: int = Field(10, ge=1)
    block_learning_rate: float = Field(1e-4, gt=0)
    scratch_pixels: int = Field(32, ge=32, le=512)
    scratch_text_tower: Literal["gru", "lstm"] = "gru"
    scratch_images: int = Field(200, ge=2)
    scratch_epochs: int = Field(3, ge=1)
    scratch_learning_rate: float = Field(1e-3, gt=0)
    augmentation: Literal["none", "crop and flip"] = "crop and flip"
    least_count: int = Field(2, ge=1)
    margin: float = Field(0.3, gt=0)


class RivalsParameters(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``rivals``: other papers' schedules and losses on one leaderboard."""

    cosine_ratios: list[Annotated[float, Field(gt=1)]] = Field([1.5, 3.0], min_length=1)
    cosine_period: float = Field(5.0, gt=0)
    divergences: list[Positive] = Field([1.0, 1.5], min_length=1)
    individual_steps: list[Positive] = Field([0.01, 0.03], min_length=1)
    uncertainty_rates: list[Positive] = Field([1e-3, 1e-2], min_length=1)
    softnesses: list[Positive] = Field([0.5, 2.0], min_length=1)
    gradnorm_alphas: list[Annotated[float, Field(ge=0)]] = Field([0.5, 1.5], min_length=1)
    gradnorm_step: float = Field(0.025, gt=0)
    smoothings: list[Share] = Field([0.05, 0.1], min_length=1)
    hinge_margins: list[Positive] = Field([0.1, 0.15, 0.2, 0.3], min_length=1)
    biases: list[float] = Field([-10.0, -4.84], min_length=1)
    caption_counts: list[Annotated[int, Field(ge=2)]] = Field([2, 5], min_length=1)


class ScalingParameters(TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``scaling``: the same sweep on more workers."""

    seeds: int = Field(8, ge=2)
    train_images: int = Field(800, ge=2)
    temperature: float = Field(0.1, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    workers: list[Count] = Field([1, 2], min_length=1)
    planned_runs: int = Field(2000, ge=1)
    planned_workers: list[Count] = Field([1, 3, 10, 30, 100, 300, 1000], min_length=1)
    megabytes_a_second: float = Field(100.0, gt=0)


class BenchmarksParameters(Parameters):
    """The notebook ``benchmarks``: where the measurements are, and what they should be."""

    results: str = ""
    overhead: float = Field(0.05, gt=0)
    products: float = Field(1.5, gt=0)
    speedup: float = Field(3.0, gt=0)
    recall_products: float = Field(1.5, gt=0)
    memory_mib: int = Field(1024, ge=1)


class BorrowParameters(Parameters):
    """The notebooks ``borrow-…``: a small training in another library's loop."""

    pairs: int = Field(128, ge=2)
    batch_size: int = Field(32, ge=2)
    epochs: int = Field(8, ge=1)
    gamma: float = 10.0
    seed: int = Field(0, ge=0)


class BorrowLongerParameters(BorrowParameters):
    """Those that train more than linear heads."""

    epochs: int = Field(20, ge=1)


MODELS: Mapping[str, type[Parameters]] = {
    "corpus": CorpusParameters,
    "baseline": BaselineParameters,
    "main-comparison": MainComparisonParameters,
    "signals": SignalsParameters,
    "controls": ControlsParameters,
    "convergence": ConvergenceParameters,
    "end-to-end": EndToEndParameters,
    "noise": NoiseParameters,
    "embeddings": EmbeddingsParameters,
    "sensitivity": SensitivityParameters,
    "rivals": RivalsParameters,
    "scaling": ScalingParameters,
    "benchmarks": BenchmarksParameters,
    "borrow-open-clip": BorrowLongerParameters,
    "borrow-sentence-transformers": BorrowLongerParameters,
    "borrow-metric-learning": BorrowParameters,
    "borrow-lightning": BorrowParameters,
    "borrow-trainer": BorrowLongerParameters,
}


def check(notebook: str, values: MutableMapping[str, Any]) -> Parameters:
    """Check a notebook's parameters among its globals; convert the safe cases in place.

    Args:
        notebook: The notebook's name, such as ``"main-comparison"``.
        values: The notebook's ``globals()``, straight after its ``parameters`` cell. Names with a
            leading underscore, IPython's own, modules, functions and classes are passed over; each
            remaining name must be a parameter. Converted values are written back.

    Returns:
        The parameters, all of them present and of the right type.

    Raises:
        ParameterError: A name is unknown or missing, or a value can't be used; all are listed.

    >>> cell = {**defaults("corpus"), "learning_rate": "1e-3", "seeds": 5.0}
    >>> check("corpus", cell).seeds, cell["learning_rate"]
    (5, 0.001)
    """
    given = {name: value for name, value in values.items() if _is_parameter(name, value)}
    missing = [name for name in model(notebook).model_fields if name not in given]
    if missing:
        raise ParameterError(
            f"notebook {notebook!r}: {', '.join(missing)} not set. The cell tagged 'parameters' "
            "must set every parameter, and run before this check."
        )
    checked = validate(notebook, given)
    values.update(checked.model_dump())
    return checked


def validate(notebook: str, given: Mapping[str, Any]) -> Parameters:
    """Return the parameters of ``notebook`` with those in ``given`` changed from their defaults.

    Raises:
        ParameterError: A name is unknown or a value can't be used; all of them are listed.

    >>> validate("corpus", {"epochs": "20"}).epochs
    20
    """
    chosen = model(notebook)
    try:
        return chosen.model_validate(dict(given))
    except ValidationError as error:
        problems = [_explain(chosen, dict(given), details) for details in error.errors()]
    if any(name not in chosen.model_fields for name in given):
        problems.append(f"The parameters of {notebook!r} are: {', '.join(chosen.model_fields)}.")
    raise ParameterError("\n  ".join([f"notebook {notebook!r}:", *problems]))


def defaults(notebook: str) -> dict[str, Any]:
    """Return the default of each parameter of ``notebook``, in the order of its model."""
    return model(notebook)().model_dump()


def model(notebook: str) -> type[Parameters]:
    """Return the model of the parameters of ``notebook``.

    Raises:
        ParameterError: There is none of that name.
    """
    if notebook not in MODELS:
        raise ParameterError(
            f"no parameters are declared for the notebook {notebook!r}"
            f"{did_you_mean(notebook, MODELS)}; lib/chapters/parameters.py declares them for "
            f"{', '.join(MODELS)}"
        )
    return MODELS[notebook]
