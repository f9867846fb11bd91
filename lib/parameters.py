"""The parameters of each notebook: their names, types, bounds and defaults, checked in one place.

Every notebook calls :func:`check` in the cell after its ``parameters`` cell. Papermill writes
whatever it is given into a notebook, so this is where text such as ``"1e-3"`` or ``"false"``
becomes a number or a Boolean, and where everything that could mean something else is refused.
The defaults are those of the quick profile. To add a parameter, add one line to its model here and
one to the notebook's ``parameters`` cell.
"""

import json
from collections.abc import Mapping, MutableMapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types as bounds
import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lib.suggest import did_you_mean, nearest

Signal = Literal["variance", "entropy", "spread"]
Actuator = Literal["direction", "magnitude", "sharpness", "sample"]
Method = Literal[
    "learned τ",
    "variance × direction",
    "entropy × direction",
    "spread × direction",
    "variance × sharpness",
    "entropy × sharpness",
    "spread × sharpness",
]
Condition = Literal[
    "default",
    "batches of 16",
    "batches of 512",
    "a tenth of the images",
    "uncentred features",
    "deep image head",
    "deep text head",
    "40 % mismatched pairs",
    "cold temperature",
]
Factor = Literal[
    "batch size",
    "temperature",
    "γ",
    "smoothing β",
    "warm-up",
    "embedding size",
    "hidden layers",
    "dropout",
    "weight decay",
    "captions an image",
    "towers",
]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Severity = Annotated[int, Field(ge=1, le=5)]
CaptionNoise = Literal["word drop", "word swap", "substitution", "typing errors", "shuffled order"]
TrainedTowers = Literal["from scratch", "last blocks"]
ImageNoise = Literal["Gaussian noise", "Gaussian blur", "occlusion", "JPEG"]

# Names that IPython puts beside those of the user.
_IPYTHON_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})

# The kinds of error that say more than the type and bounds of the parameter do.
_OWN_REASONS = frozenset({"boolean", "repeated"})


class ParameterError(ValueError):
    """A notebook's parameter has an unknown name or an unusable value; the text says what to do."""


class Parameters(BaseModel):
    """What every notebook's parameters share: they are immutable, complete and strictly typed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _convert_safe_cases(cls, value: Any, info: Any) -> Any:
        return _convert(cls.model_fields[info.field_name].annotation, value)

    @field_validator("*")
    @classmethod
    def _refuse_repetition(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "no value may stand twice")
        return value


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


class CorpusParameters(TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``corpus``: the corpus and what low data means."""

    learning_rate: float = Field(3e-3, gt=0)
    train_sizes: list[Count] = Field([100, 200, 400, 800], min_length=1)
    temperature: float = Field(0.1, gt=0)
    least_steps: int = Field(80, ge=0)


class BaselineParameters(TuningOptions, TrainingOptions, TowerOptions, CorpusOptions):
    """The notebook ``baseline``: the fixed weighting, tuned."""


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
            f"{did_you_mean(notebook, MODELS)}; lib/parameters.py declares them for "
            f"{', '.join(MODELS)}"
        )
    return MODELS[notebook]


def describe(field: FieldInfo) -> str:
    """Say in words which values a parameter takes.

    >>> describe(MainComparisonParameters.model_fields["beta"])
    'a finite number, at least 0, less than 1'
    """
    if field.description:
        return field.description
    return ", ".join([_describe_type(field.annotation), *_describe_bounds(field.metadata)])


def _convert(annotation: Any, value: Any) -> Any:
    """Convert the values that can mean only one thing; refuse the few that pydantic would bend."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        if isinstance(value, str) and value.strip().startswith("["):
            value = _parse_list(value)
        if isinstance(value, list | tuple):
            (inner,) = get_args(annotation)
            return [_convert(inner, item) for item in value]
    if annotation in (int, float) and isinstance(value, bool):
        raise PydanticCustomError("boolean", "{value} is no number", {"value": str(value)})
    if annotation is int and isinstance(value, str):
        return _parse_integer(value)
    return value


def _parse_list(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _parse_integer(text: str) -> int | str:
    # "1e3" and "20.0" are counts too; what is not whole stays text, for pydantic to refuse.
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else text


def _is_parameter(name: str, value: Any) -> bool:
    code = (ModuleType, FunctionType, BuiltinFunctionType, type)
    return not (name.startswith("_") or name in _IPYTHON_NAMES or isinstance(value, code))


def _explain(chosen: type[Parameters], given: dict[str, Any], details: ErrorDetails) -> str:
    location = details["loc"]
    if not location:
        return details["msg"]
    name = str(location[0])
    if name not in chosen.model_fields:
        return f"unknown parameter {name!r}{did_you_mean(name, chosen.model_fields)}"
    field = chosen.model_fields[name]
    place = name + "".join(f"[{step}]" for step in location[1:] if isinstance(step, int))
    reason = f" ({details['msg']})" if details["type"] in _OWN_REASONS else ""
    value = details["input"] if len(location) > 1 else given[name]
    return (
        f"{place} = {_short(value)}: expected {describe(field)}{reason}; "
        f"{_advise(name, field, value)}"
    )


def _advise(name: str, field: FieldInfo, value: Any) -> str:
    """Say which flag would set the parameter properly."""
    if get_origin(field.annotation) is list:
        example = json.dumps(field.get_default(call_default_factory=True)).replace('"', "")
        return f"write -p {name} '{example}'"
    default = field.default
    if _takes_text(field.annotation) and isinstance(value, bool):
        words = "yes, on or true" if value else "no, off or false"
        return (
            f"YAML reads a bare {words} as {value}, so quote it: "
            f"-y '{{{name}: \"{_quoted_example(field, value)}\"}}'"
        )
    if _takes_text(field.annotation) and not isinstance(value, str):
        return f"quote it: -y '{{{name}: \"{default or value}\"}}'"
    if isinstance(value, str) and get_origin(field.annotation) is Literal:
        default = nearest(value, get_args(field.annotation)) or default
    if isinstance(default, bool):
        default = str(default).lower()
    return f"write -p {name} {'TEXT' if default == '' else default}"


def _quoted_example(field: FieldInfo, value: bool) -> str:
    words = ("yes", "on", "true") if value else ("no", "off", "false")
    allowed = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return next((word for word in words if word in allowed), str(field.default or words[0]))


def _takes_text(annotation: Any) -> bool:
    return annotation is str or get_origin(annotation) is Literal


def _describe_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [bound for part in arguments[1:] for bound in getattr(part, "metadata", [])]
        return ", ".join([_describe_type(arguments[0]), *_describe_bounds(inner)])
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is list:
        return f"a list, each {_describe_type(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return names[annotation]


def _describe_bounds(metadata: list[Any]) -> list[str]:
    words = []
    for bound in metadata:
        match bound:
            case bounds.Ge(ge=limit):
                words.append(f"at least {limit}")
            case bounds.Gt(gt=limit):
                words.append(f"more than {limit}")
            case bounds.Lt(lt=limit):
                words.append(f"less than {limit}")
            case bounds.Le(le=limit):
                words.append(f"at most {limit}")
            case bounds.MinLen():
                words.append("not empty")
    return words


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
