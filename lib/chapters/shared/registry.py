"""All comparisons of the book: each notebook publishes its own, and each has one verdict.

Like a finding, they are an output of the executed notebook, so that the notebook that is named has
computed them.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from lib.chapters.shared.findings import Estimate, FindingError, Text, published
from lib.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

MIME_TYPE = "application/vnd.study.comparisons+json"
COMPARISONS = PurePosixPath("book/results/comparisons.json")
"""The registry in the book's sources, beside the chapters that it names."""
METRIC_NAMES = {
    **{f"{d}_r{k}": f"{d} R@{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)},
    "rsum": "rSum",
    "i2t_median_rank": "i2t median rank",
    "t2i_median_rank": "t2i median rank",
}
"""Test metrics, and what a comparison calls them."""
SETTINGS = ("condition", "level", "towers")
"""Columns that say under which setting a row was compared."""
USUAL = ("default", "default: as tuned")
"""The values of these columns for the setting of the main comparison."""
LARGEST_FACTOR = 1e6
"""Bayes factors are kept up to this."""


class RegisteredComparison(Estimate):
    """A comparison as the registry keeps it.

    Attributes:
        question: What was asked, in a few words.
        notebook: The name of the notebook that computed it.
        corpus, train_images: What was trained on.
        setting: What differs from the main comparison's setting; empty if nothing does.
        p: The p-value, not adjusted.
        bayes_factor: For an effect, against none.
    """

    question: Text
    notebook: Text
    corpus: Text
    train_images: int = Field(ge=1)
    setting: str = ""
    p: float = Field(ge=0, le=1)
    bayes_factor: float = Field(ge=0)

    @property
    def what(self) -> tuple[str, int, str, str, str, str]:
        """What is compared; two comparisons of the same have the same numbers."""
        return (
            *(self.corpus, self.train_images, self.setting),
            *(self.method, self.baseline, self.metric),
        )


class Comparisons(BaseModel):
    """The comparisons of one notebook."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    notebook: Text
    comparisons: tuple[RegisteredComparison, ...]


def registered(
    notebook: str,
    questions: "Mapping[str, pd.DataFrame]",
    *,
    corpus: str,
    train_images: int,
    setting: str = "",
) -> list[RegisteredComparison]:
    """Return the comparisons of a notebook for the registry.

    Args:
        notebook: Its name.
        questions: Question to rows of :func:`lib.statistics.comparison_table`, perhaps with other
            fields of :class:`RegisteredComparison`, or a column of :data:`SETTINGS`.
        corpus, train_images: What was trained on, unless a row has its own number.
        setting: In what all rows differ from the main comparison.
    """
    found = []
    for question, table in questions.items():
        fields = [name for name in RegisteredComparison.model_fields if name in table]
        for row in table.to_dict("records"):
            own = [str(row[name]) for name in SETTINGS if name in row and row[name] not in USUAL]
            common = {"notebook": notebook, "question": question, "corpus": corpus}
            values = {
                "train_images": train_images,
                **{name: row[name] for name in fields},
                **common,
            }
            values["metric"] = METRIC_NAMES.get(row["metric"], row["metric"])
            values["setting"] = ", ".join(filter(None, [setting, *own]))
            values["bayes_factor"] = min(row["bayes_factor"], LARGEST_FACTOR)
            found.append(RegisteredComparison.model_validate(values))
    return found


def publish_comparisons(
    notebook: str, questions: "Mapping[str, pd.DataFrame]", **conditions: Any
) -> None:
    """Display the comparisons of a notebook: a line for the reader, the rest for the book.
    Arguments are as for :func:`registered`."""
    from IPython.display import display

    found = registered(notebook, questions, **conditions)
    counted = ", ".join(f"{len(table)} on {question}" for question, table in questions.items())
    text = f"Comparisons of this chapter: {counted}."
    content = Comparisons(notebook=notebook, comparisons=tuple(found)).model_dump(mode="json")
    display(  # type: ignore[no-untyped-call]
        {MIME_TYPE: content, "text/markdown": text, "text/plain": text}, raw=True
    )


def collect_comparisons(paths: Iterable[Path]) -> list[RegisteredComparison]:
    """Return the comparisons that executed notebooks publish, each once.

    Raises:
        FindingError: A notebook can't be read, what it publishes is malformed, or two notebooks
            have different numbers or verdicts for the same comparison.
    """
    known: dict[tuple[Any, ...], RegisteredComparison] = {}
    for path in paths:
        for content in published(path, MIME_TYPE, Comparisons):
            for one in content.comparisons:
                other = known.setdefault(one.what, one)
                if not _same(one, other):
                    raise FindingError(
                        f"{one.method} against {one.baseline} in {one.metric}, "
                        f"{one.train_images:,} images{', ' * bool(one.setting)}{one.setting}, has "
                        f"two verdicts: {other.estimate:+.4f}, {other.verdict} in "
                        f"{other.notebook} ({other.question}); {one.estimate:+.4f}, {one.verdict} "
                        f"in {one.notebook} ({one.question})"
                    )
    return list(known.values())


def write_comparisons(paths: Iterable[Path], target: Path) -> None:
    """Write what :func:`collect_comparisons` returns to ``target`` as JSON."""
    rows = [one.model_dump(mode="json") for one in collect_comparisons(paths)]
    write_atomic(target, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _same(one: RegisteredComparison, other: RegisteredComparison) -> bool:
    numbers = ("estimate", "low", "high", "p")
    return (one.verdict, one.seeds) == (other.verdict, other.seeds) and all(
        math.isclose(getattr(one, name), getattr(other, name), rel_tol=1e-9, abs_tol=1e-12)
        for name in numbers
    )
