"""The parameters of each notebook: their names, types, bounds, defaults and what they mean.

Every notebook calls :func:`check` in the cell after its ``parameters`` cell, since Papermill writes
any value into a notebook: text such as ``"1e-3"`` or ``"false"`` becomes a number or a Boolean, and
an ambiguous value is refused. The defaults are those of the quick profile. To add a parameter, add
its field with a description to a model here and call ``study links``, which writes the cells.
"""

from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lib.chapters.shared.checking import MODELS as MODELS
from lib.chapters.shared.checking import ParameterError, Parameters, _explain, _is_parameter
from lib.chapters.shared.options import (
    Actuator,
    CorpusOptions,
    Count,
    MethodOptions,
    Positive,
    Rate,
    SampleOptions,
    Several,
    Severity,
    Share,
    Signal,
    TowerOptions,
    TrainingOptions,
    TuningOptions,
)
from lib.utils.names import OneOf
from lib.utils.text import did_you_mean

Compared = Annotated[str, OneOf("lib.chapters.shared.methods:methods", but=("fixed",))]


class CorpusParameters(TrainingOptions, TowerOptions, CorpusOptions, notebooks=["corpus"]):
    """The notebook ``corpus``: the corpus and what low data means."""

    learning_rate: float = Field(3e-3, gt=0)
    """of AdamW"""
    train_sizes: list[Count] = Field([100, 200, 400, 800], min_length=1)
    """numbers of training images"""
    temperature: float = Field(0.1, gt=0)
    """of the fixed loss"""
    least_steps: int = Field(80, ge=0)
    """few images make few batches: epochs are added to reach so many steps"""


class BaselineParameters(
    TuningOptions, TrainingOptions, TowerOptions, CorpusOptions, notebooks=["baseline"]
):
    """The notebook ``baseline``: the fixed weighting, tuned."""


class ComparisonOptions(MethodOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """What the notebooks that compare tuned methods share."""


class MainComparisonParameters(SampleOptions, ComparisonOptions, notebooks=["main-comparison"]):
    """The notebook ``main-comparison``: scheduled weights against fixed ones."""

    signals: list[Signal] = Field(["variance", "entropy", "spread"], min_length=1)
    """what drives a scheduler"""
    actuators: list[Actuator] = Field(
        ["direction", "magnitude", "sharpness", "sample"], min_length=1
    )
    """what it turns"""


class SignalsParameters(ComparisonOptions, notebooks=["signals"]):
    """The notebook ``signals``: what the scheduler sees, and what it would take to matter."""

    swept_gammas: list[float] = Field([-300.0, 300.0], min_length=1)
    """exponents far beyond those that were tuned over"""
    conditions: list[Annotated[str, OneOf("lib.chapters.signals.conditions:CONDITIONS")]] = Field(
        ["default", "uncentred features", "40 % mismatched pairs"], min_length=1
    )
    """what is changed"""
    condition_gamma: float = 10.0
    """exponent of the scheduler under each condition"""


class ControlsParameters(ComparisonOptions, notebooks=["controls"]):
    """The notebook ``controls``: whether a gain is due to adapting."""

    constant_weights: list[Annotated[float, Field(gt=0, lt=2)]] = Field([0.5, 1.5], min_length=1)
    """of image → text; the other direction gets 2 minus it"""
    strong_gamma: float = 300.0
    """an exponent at which the weights leave 1 visibly"""
    decayed_rates: list[Positive] = Field([3e-3, 1e-2], min_length=1)
    """first learning rates, where they decay"""


class ConvergenceParameters(ComparisonOptions, notebooks=["convergence"]):
    """The notebook ``convergence``: how soon a run is as good as the fixed loss gets."""

    epochs: int = Field(15, ge=1)
    """passes over the subset; a run that is not there by then is censored"""
    margin: float = Field(0.25, gt=0)
    """epochs within which two methods are equally fast: about two steps"""


class EndToEndParameters(TowerOptions, CorpusOptions, notebooks=["end-to-end"]):
    """The notebook ``end-to-end``: towers that are trained with their heads."""

    image_tower: str = Field("efficientnet-lite0@128", min_length=1)
    """an EfficientNet; @N sets the input size in pixels"""
    text_tower: str = Field("minilm", min_length=1)
    """a tower of the BERT kind"""
    settings: list[Annotated[str, OneOf("lib.runs.config:TRAINED_TOWERS")]] = Field(
        ["from scratch", "last blocks"], min_length=1
    )
    """what of the towers is trained"""
    signals: list[Signal] = Field(["variance", "entropy"], min_length=1)
    """what drives a scheduler"""
    seeds: int = Field(2, ge=2)
    """paired seeds: 0 to seeds - 1"""
    tuning_seeds: int = Field(1, ge=1)
    """the first so many of them choose the constants, on validation"""
    temperatures: list[Positive] = Field([0.1], min_length=1)
    """τ of the fixed loss; schedulers get the one that it chose"""
    gammas: list[float] = Field([10.0], min_length=1)
    """exponents of the signal, as many as temperatures"""
    beta: float = Field(0.9, ge=0, lt=1)
    """smoothing of the signal"""
    warmup: int = Field(0, ge=0)
    """steps before a scheduler acts"""
    batch_size: int = Field(64, ge=2)
    """pairs in a batch"""
    embedding_dim: int = Field(256, ge=1)
    """length of an embedding"""
    weight_decay: float = Field(0.01, ge=0)
    """of AdamW, on weights alone"""
    learning_rate: float = Field(3e-3, gt=0)
    """of the heads over pretrained towers"""
    train_images: int = Field(200, ge=2)
    """training images of pretrained towers, drawn by the seed"""
    epochs: int = Field(2, ge=1)
    """passes over them with the last blocks free"""
    frozen_epochs: int = Field(10, ge=1)
    """passes over them with frozen towers"""
    block_learning_rate: float = Field(1e-4, gt=0)
    """of the last blocks"""
    scratch_pixels: int = Field(32, ge=32, le=512)
    """side of a picture that ResNet-18 sees"""
    scratch_text_tower: Literal["gru", "lstm"] = "gru"
    """of its captions"""
    scratch_images: int = Field(200, ge=2)
    """training images from scratch"""
    scratch_epochs: int = Field(3, ge=1)
    """passes over them"""
    scratch_learning_rate: float = Field(1e-3, gt=0)
    """of towers and heads"""
    augmentation: Literal["none", "crop and flip"] = "crop and flip"
    """of the pixels, from scratch"""
    least_count: int = Field(2, ge=1)
    """a word that comes less often in the training captions is unknown"""
    margin: float = Field(0.3, gt=0)
    """points of recall within which two methods count as equivalent"""


class NoiseParameters(SampleOptions, ComparisonOptions, notebooks=["noise"]):
    """The notebook ``noise``: what a method loses to noise, in training and at test."""

    methods: list[Annotated[str, OneOf("lib.chapters.shared.methods:methods")]] = Field(
        ["fixed", "variance × direction", "variance × sharpness"], min_length=2
    )
    """what is compared"""
    robust_powers: list[Rate] = Field([0.1, 0.5], min_length=1)
    """q of the robust loss"""
    mismatched_rates: list[Rate] = Field([0.4], min_length=1)
    """shares of training pairs that are mismatched; 0.4 always"""
    caption_rates: list[Rate] = Field([0.8], min_length=1)
    """shares of training captions that are noisy; 0.8 always"""
    image_rates: list[Rate] = Field([0.8], min_length=1)
    """shares of training images that are noisy; 0.8 always"""
    caption_noise: list[Annotated[str, OneOf("lib.noise:CAPTION_KINDS")]] = Field(
        ["typing errors"], min_length=1
    )
    """kinds of noise in the test captions"""
    image_noise: list[Annotated[str, OneOf("lib.noise:IMAGE_KINDS")]] = Field(
        ["Gaussian noise"], min_length=1
    )
    """kinds of noise in the test images"""
    severities: list[Severity] = Field([3], min_length=1)
    """of the noise at test, 1 to 5; 3 always"""


class EmbeddingsParameters(ComparisonOptions, notebooks=["embeddings"]):
    """The notebook ``embeddings``: how the trained embeddings lie and cluster."""

    margin: float = Field(1.0, gt=0)
    """% of the way from no structure to a perfect one that counts as no difference"""
    methods: list[Compared] = Field(["variance × direction", "variance × sharpness"], min_length=1)
    """compared with the fixed loss"""
    mapped: list[Compared] = Field(["variance × direction", "variance × sharpness"], min_length=1)
    """whose maps stand beside fixed's"""
    map_seeds: int = Field(2, ge=1)
    """the first so many seeds are mapped"""
    map_images: int = Field(120, ge=10)
    """labelled test images in a map, each with a caption"""
    perplexities: list[Positive] = Field([10.0, 30.0], min_length=1)
    """of the maps"""
    random_starts: int = Field(1, ge=0)
    """maps from a random start, beside the one from principal components"""
    curve_seeds: int = Field(2, ge=2)
    """seeds on which the fixed loss is measured at every temperature"""


class SensitivityParameters(ComparisonOptions, notebooks=["sensitivity"]):
    """The notebook ``sensitivity``: the effect against n, and one factor at a time."""

    train_sizes: list[Several] = Field([200, 800], min_length=1)
    """numbers of training images, everything tuned anew at each"""
    least_steps: int = Field(30, ge=0)
    """a small subset gets more epochs, until it has so many steps"""
    decayed_rates: list[Positive] = Field([3e-3, 1e-2], min_length=1)
    """first learning rates, where they decay"""
    caption_counts: list[Several] = Field([2, 5], min_length=1)
    """captions of an image in a step, where they are several"""
    factors: list[Annotated[str, OneOf("lib.chapters.sensitivity.factors:FACTORS")]] = Field(
        ["temperature", "captions an image"], min_length=1
    )
    """settings that are moved one at a time"""
    factor_seeds: int = Field(3, ge=2)
    """paired seeds of each level of a factor"""
    factor_gamma: float = 10.0
    """exponent of the paper's scheduler there: enough to give it a say"""


class RivalsParameters(ComparisonOptions, notebooks=["rivals"]):
    """The notebook ``rivals``: other papers' schedules and losses on one leaderboard."""

    cosine_ratios: list[Annotated[float, Field(gt=1)]] = Field([1.5, 3.0], min_length=1)
    """high over low bound of a swinging temperature, τ their mean"""
    cosine_period: float = Field(5.0, gt=0)
    """epochs of a swing"""
    divergences: list[Positive] = Field([1.0, 1.5], min_length=1)
    """individual temperatures: ρ, how unequal negatives may weigh"""
    individual_steps: list[Positive] = Field([0.01, 0.03], min_length=1)
    """individual temperatures: η, their step size"""
    uncertainty_rates: list[Positive] = Field([1e-3, 1e-2], min_length=1)
    """learning rates of the log-variances"""
    softnesses: list[Positive] = Field([0.5, 2.0], min_length=1)
    """T of analytic uncertainty and dynamic weight average"""
    gradnorm_alphas: list[Annotated[float, Field(ge=0)]] = Field([0.5, 1.5], min_length=1)
    """how strongly the slower direction is pushed"""
    gradnorm_step: float = Field(0.025, gt=0)
    """learning rate of GradNorm's weights"""
    smoothings: list[Share] = Field([0.05, 0.1], min_length=1)
    """ε of label smoothing"""
    hinge_margins: list[Positive] = Field([0.1, 0.15, 0.2, 0.3], min_length=1)
    """α of the hardest negatives"""
    biases: list[float] = Field([-10.0, -4.84], min_length=1)
    """b of the sigmoid loss; -4.84 is -log(127), the log-odds of a pair"""
    caption_counts: list[Several] = Field([2, 5], min_length=1)
    """captions that an image brings to a batch of the multi-positive loss"""


class ScalingParameters(TrainingOptions, TowerOptions, CorpusOptions, notebooks=["scaling"]):
    """The notebook ``scaling``: the same sweep on more workers."""

    seeds: int = Field(8, ge=2)
    """runs that are timed, one a seed"""
    train_images: int = Field(800, ge=2)
    """training images, drawn by the seed"""
    temperature: float = Field(0.1, gt=0)
    """τ"""
    learning_rate: float = Field(3e-3, gt=0)
    """of AdamW"""
    workers: list[Count] = Field([1, 2], min_length=1)
    """processes to try on this machine"""
    planned_runs: int = Field(2000, ge=1)
    """runs of the sweep that is planned"""
    planned_workers: list[Count] = Field([1, 3, 10, 30, 100, 300, 1000], min_length=1)
    """workers that it is planned for"""
    megabytes_a_second: float = Field(100.0, gt=0)
    """of a worker's network, in the plan"""


class BenchmarksParameters(Parameters, notebooks=["benchmarks"]):
    """The notebook ``benchmarks``: the measurements and their targets."""

    results: str = ""
    """folder of the measurements; empty: those of the package"""
    overhead: float = Field(0.25, gt=0)
    """most that a scheduled step may take beyond the plain loss's, as a share"""
    large_overhead: float = Field(0.05, gt=0)
    """the same at the largest batch"""
    products: float = Field(1.5, gt=0)
    """most that many seeds may take, in times of their matrix products alone"""
    speedup: float = Field(3.0, gt=0)
    """least by which they should be faster than a loop, on small batches"""
    recall_products: float = Field(1.5, gt=0)
    """most that recall may take, in times of the matrix product"""
    memory_mib: int = Field(1024, ge=1)
    """MiB that recall over 20,000 images and 100,000 captions must stay under"""
    recomputation: float = Field(1.5, gt=0)
    """most that a batch may take from micro-batches, in times of one piece"""


class BorrowParameters(Parameters, notebooks=["borrow-metric-learning", "borrow-lightning"]):
    """The notebooks ``borrow-…``: a small training in another library's loop."""

    pairs: int = Field(128, ge=2)
    """scenes, each with one caption"""
    batch_size: int = Field(32, ge=2)
    """pairs in a batch"""
    epochs: int = Field(8, ge=1)
    """passes over the pairs"""
    gamma: float = 10.0
    """γ of variance × direction"""
    seed: int = Field(0, ge=0)
    """of the weights and the order"""


class BorrowLongerParameters(
    BorrowParameters,
    notebooks=["borrow-open-clip", "borrow-sentence-transformers", "borrow-trainer"],
):
    """Those that train more than linear heads."""

    epochs: int = Field(20, ge=1)
    """passes over the pairs"""


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
