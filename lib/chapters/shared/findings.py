"""The paper's five claims, the findings that answer them, and the setting that is recommended.

A notebook publishes a finding, or the recommendation, as an output of its own MIME type;
:func:`collect` reads them from the executed notebooks. So the notebook that a verdict in the book
or in ``findings.json`` names has computed the verdict.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib.utils.files import write_atomic

MIME_TYPE = "application/vnd.study.finding+json"
RECOMMENDATION_MIME_TYPE = "application/vnd.study.recommendation+json"

ClaimVerdict = Literal["improves", "worsens", "equivalent", "undecided", "open"]
Edition = Literal["quick", "published"]
Text = Annotated[str, Field(min_length=1)]


class FindingError(ValueError):
    """An executed notebook is not readable, or what it publishes contradicts itself or another."""


class Claim(BaseModel):
    """A claim of Pillai (2025), "Variance-Aware Loss Scheduling for Multimodal Alignment".

    Attributes:
        number: 1 to 5, the order in which the book takes the claims.
        title: The claim in a few words.
        paper: What the paper says, in a sentence.
        gains: The paper's gains over fixed weights by metric, in the metric's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    title: str
    paper: str
    gains: Mapping[str, float] = Field(default_factory=dict)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        number=1,
        title="It retrieves better than fixed weights",
        paper="Variance-aware weights raise R@1 over fixed weights by 2.3 points from image to "
        "text and by 1.5 points from text to image.",
        gains={"i2t R@1": 2.3, "t2i R@1": 1.5},
    ),
    Claim(
        number=2,
        title="It beats entropy and cosine-spread weights",
        paper="Variance is the better signal: weights set by entropy or by the spread of the "
        "cosine similarities retrieve less well.",
    ),
    Claim(
        number=3,
        title="It withstands noise better",
        paper="With noise in captions and images, variance-aware training loses less recall than "
        "fixed weights do.",
    ),
    Claim(
        number=4,
        title="It separates the embeddings more clearly",
        paper="In a t-SNE view the matched images and captions lie closer and the clusters are "
        "more distinct.",
    ),
    Claim(
        number=5,
        title="It converges faster",
        paper="Variance-aware training reaches its best validation recall in fewer epochs.",
    ),
)


class Estimate(BaseModel):
    """One paired comparison over seeds: ``method`` minus ``baseline``.

    Attributes:
        metric: What was measured, such as ``"i2t R@1"``.
        estimate: The mean paired difference, in ``unit``.
        low: The lower end of its 95 % interval.
        high: The upper end.
        wide_low: The lower end of the interval by which the verdict is given.
        wide_high: Its upper end.
        unit: ``"points"`` of recall by default.
        margin: Half-width of the band within which a difference counts as none, in ``unit``.
        lower_is_better: Whether a negative difference is better, as of epochs.
        train_images: The number of training images, if a finding has several sizes.
        seeds: The number of paired seeds.
        identical: The number of seeds at which both methods have the same value.
        p_adjusted: The p-value, adjusted for the family, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: Text
    baseline: Text
    method: Text
    estimate: float
    low: float
    high: float
    wide_low: float | None = None
    wide_high: float | None = None
    unit: str = "points"
    margin: float | None = Field(None, gt=0)
    lower_is_better: bool = False
    train_images: int | None = Field(None, ge=1)
    seeds: int = Field(ge=1)
    identical: int = Field(0, ge=0)
    p_adjusted: float | None = Field(None, ge=0, le=1)
    verdict: ClaimVerdict

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval of {self.metric} runs from {self.low} to {self.high}")
        return self


class Finding(BaseModel):
    """One notebook's answer to one claim.

    >>> finding = Finding(claim=5, verdict="undecided", notebook="main-comparison",
    ...                   summary="Too few seeds.", corpus="scenes", train_images=800)
    >>> finding.estimates
    ()
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: int = Field(ge=1, le=len(CLAIMS))
    verdict: ClaimVerdict
    notebook: Text
    estimates: tuple[Estimate, ...] = ()
    summary: Text
    corpus: Text
    train_images: int = Field(ge=1)


class Recommendation(BaseModel):
    """The one setting that the study recommends; it may be the tuned fixed baseline itself.

    Attributes:
        name: The setting in a few words.
        notebook: Where it was found.
        summary: What it does, in a sentence or two.
        settings: Name to value, as a reader would set them.
        estimates: Its gain over the tuned fixed baseline, by number of training images.

    >>> Recommendation(name="fixed, tuned", notebook="sensitivity", summary="Nothing beats it.",
    ...                settings={"temperature": "0.1"}).estimates
    ()
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Text
    notebook: Text
    summary: Text
    settings: Mapping[str, str] = Field(default_factory=dict)
    estimates: tuple[Estimate, ...] = ()


class Published(Protocol):
    """What a notebook publishes."""

    @property
    def notebook(self) -> str:
        """The name of the notebook."""
        ...

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return what ``obj`` describes."""
        ...


Result = TypeVar("Result", bound=Published)


def claim(number: int) -> Claim:
    """Return the claim of that number, 1 to 5.

    >>> claim(1).gains["i2t R@1"]
    2.3
    """
    return {claim.number: claim for claim in CLAIMS}[number]


def publish(result: Finding | Recommendation) -> None:
    """Display ``result`` in a notebook: its sentence for the reader, the rest for the book."""
    from IPython.display import display

    kind = MIME_TYPE if isinstance(result, Finding) else RECOMMENDATION_MIME_TYPE
    display(  # type: ignore[no-untyped-call]
        {
            kind: result.model_dump(mode="json"),
            "text/markdown": result.summary,
            "text/plain": result.summary,
        },
        raw=True,
    )


def collect(paths: Iterable[Path], edition: Edition = "published") -> dict[str, Any]:
    """Return the answer to each claim, and the recommendation, from the executed notebooks.

    Args:
        paths: Executed notebooks; each is named by its file, without the ending.
        edition: The edition of the book that they belong to.

    Returns:
        ``{"edition": ..., "claims": [...], "recommendation": ...}``; a claim without an answer has
        the verdict "open", and the recommendation may be None.

    Raises:
        FindingError: A notebook can't be read, what it publishes is malformed or names another
            notebook, two findings answer one claim, or there are two recommendations.
    """
    answers: dict[int, Finding] = {}
    recommended: list[Recommendation] = []
    for path in paths:
        for finding in published(path, MIME_TYPE, Finding):
            if finding.claim in answers:
                raise FindingError(
                    f"claim {finding.claim} is answered twice: by "
                    f"{answers[finding.claim].notebook!r} and by {finding.notebook!r}; "
                    "let one notebook publish the answer"
                )
            answers[finding.claim] = finding
        recommended += published(path, RECOMMENDATION_MIME_TYPE, Recommendation)
    if len(recommended) > 1:
        places = " and by ".join(repr(one.notebook) for one in recommended)
        raise FindingError(f"a setting is recommended twice: by {places}; publish one")
    return {
        "edition": edition,
        "claims": [_entry(claim, answers) for claim in CLAIMS],
        "recommendation": recommended[0].model_dump(mode="json") if recommended else None,
    }


def write_findings(paths: Iterable[Path], target: Path, edition: Edition = "published") -> None:
    """Write what :func:`collect` returns to ``target`` as JSON, whole or not at all.

    Raises:
        FindingError: As :func:`collect` does; ``target`` is then left as it was.
    """
    collected = collect(paths, edition)
    write_atomic(target, json.dumps(collected, indent=2, ensure_ascii=False) + "\n")


def _entry(claim: Claim, answers: Mapping[int, Finding]) -> dict[str, Any]:
    finding = answers.get(claim.number)
    known = dict.fromkeys(Finding.model_fields) | {"verdict": "open", "estimates": []}
    if finding is not None:
        known = finding.model_dump(mode="json")
    about = {"claim": claim.number, "title": claim.title, "paper": claim.paper}
    return {**about, **known, "claim": claim.number}


def _read_outputs(path: Path) -> list[Mapping[str, Any]]:
    """Return the data of each output of an executed notebook, by kind."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        return [dict(output.get("data", {})) for output in outputs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FindingError(f"{path} is no readable executed notebook: {error}") from error


def published(path: Path, kind: str, model: type[Result]) -> list[Result]:
    """Return what an executed notebook publishes of one kind.

    Args:
        path: The executed notebook.
        kind: The MIME type.
        model: What the outputs are; it has a field ``notebook``.

    Raises:
        FindingError: The notebook can't be read, or what it publishes is malformed or names another
            notebook.
    """
    name, outputs = model.__name__.lower(), _read_outputs(path)
    try:
        results = [model.model_validate(data[kind]) for data in outputs if kind in data]
    except ValidationError as error:
        raise FindingError(f"{path} publishes a malformed {name}: {error}") from error
    for result in results:
        if result.notebook != path.stem:
            raise FindingError(f"{path} publishes a {name} as the notebook {result.notebook!r}")
    return results
