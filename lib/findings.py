"""The paper's five claims, and the findings by which the executed notebooks answer them.

A notebook publishes a finding as an output of its own kind; :func:`collect` reads them back from
the executed notebooks, so that every verdict in the book and in ``findings.json`` has been computed
by the notebook that it names, and none is typed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib.files import write_atomic

MIME_TYPE = "application/vnd.study.finding+json"

Verdict = Literal["improves", "worsens", "equivalent", "undecided", "open"]
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
        unit: ``"points"`` of recall unless said otherwise.
        seeds: How many paired seeds the comparison rests on.
        p_adjusted: The Holm-adjusted p-value, or None where none was computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: Text
    baseline: Text
    method: Text
    estimate: float
    low: float
    high: float
    unit: str = "points"
    seeds: int = Field(ge=1)
    p_adjusted: float | None = Field(None, ge=0, le=1)
    verdict: Verdict

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval of {self.metric} runs from {self.low} to {self.high}")
        return self


class Finding(BaseModel):
    """What one notebook found about one claim.

    >>> finding = Finding(claim=5, verdict="undecided", notebook="main-comparison",
    ...                   summary="Too few seeds.", corpus="scenes", train_images=800)
    >>> finding.estimates
    ()
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: int = Field(ge=1, le=len(CLAIMS))
    verdict: Verdict
    notebook: Text
    estimates: tuple[Estimate, ...] = ()
    summary: Text
    corpus: Text
    train_images: int = Field(ge=1)


def claim(number: int) -> Claim:
    """Return the claim of that number, 1 to 5.

    >>> claim(1).gains["i2t R@1"]
    2.3
    """
    return {claim.number: claim for claim in CLAIMS}[number]


def publish(finding: Finding) -> None:
    """Display ``finding`` in a notebook: its sentence for the reader, the rest for the book."""
    from IPython.display import display

    display(  # type: ignore[no-untyped-call]
        {
            MIME_TYPE: finding.model_dump(mode="json"),
            "text/markdown": finding.summary,
            "text/plain": finding.summary,
        },
        raw=True,
    )


def collect(paths: Iterable[Path], edition: Edition = "published") -> dict[str, Any]:
    """Return the answer to each claim from the executed notebooks at ``paths``.

    Args:
        paths: Executed notebooks; each is named by its file, without the ending.
        edition: The edition of the book that they belong to.

    Returns:
        ``{"edition": ..., "claims": [...]}``, a claim without an answer having the verdict "open".

    Raises:
        FindingError: A notebook can't be read, its finding is malformed or names another notebook,
            or two findings answer one claim.
    """
    answers: dict[int, Finding] = {}
    for path in paths:
        for finding in _read_findings(path):
            if finding.claim in answers:
                raise FindingError(
                    f"claim {finding.claim} is answered twice: by "
                    f"{answers[finding.claim].notebook!r} and by {finding.notebook!r}; "
                    "let one notebook publish the answer"
                )
            answers[finding.claim] = finding
    return {"edition": edition, "claims": [_entry(claim, answers) for claim in CLAIMS]}


def write_findings(paths: Iterable[Path], target: Path, edition: Edition = "published") -> None:
    """Write what :func:`collect` returns to ``target`` as JSON, whole or not at all.

    Raises:
        FindingError: As :func:`collect` does; ``target`` is then left as it was.
    """
    collected = collect(paths, edition)
    write_atomic(target, json.dumps(collected, indent=2, ensure_ascii=False) + "\n")


def _entry(claim: Claim, answers: Mapping[int, Finding]) -> dict[str, Any]:
    finding = answers.get(claim.number)
    entry: dict[str, Any] = {
        "claim": claim.number,
        "title": claim.title,
        "paper": claim.paper,
        "verdict": "open",
        "notebook": None,
        "estimates": [],
        "summary": None,
        "corpus": None,
        "train_images": None,
    }
    return entry if finding is None else {**entry, **finding.model_dump(mode="json")}


def _read_findings(path: Path) -> list[Finding]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        published = [o["data"][MIME_TYPE] for o in outputs if MIME_TYPE in o.get("data", {})]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FindingError(f"{path} is no readable executed notebook: {error}") from error
    try:
        findings = [Finding.model_validate(data) for data in published]
    except ValidationError as error:
        raise FindingError(f"{path} publishes a malformed finding: {error}") from error
    for finding in findings:
        if finding.notebook != path.stem:
            raise FindingError(f"{path} publishes a finding as the notebook {finding.notebook!r}")
    return findings
