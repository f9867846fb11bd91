"""The numbers and verdicts of ``findings.json`` in the book's prose.

The role ``{finding}`1.estimates.0.estimate:+.2f` `` shows one value: the first estimate of claim 1.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from docutils import nodes  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxRole

from lib.chapters.shared.findings import ClaimVerdict, Edition, Estimate, Recommendation

FINDINGS = PurePosixPath("book/results/findings.json")
"""The findings in the book's sources; the chapters that they name are in the same folder."""


Results = TypeVar("Results")


class FindingsError(SphinxError):
    """The findings are missing or malformed, or lack a value that a page shows."""

    category = "Findings error"


class Entry(BaseModel):
    """One claim in ``findings.json``, answered or open."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: int
    title: str
    paper: str
    verdict: ClaimVerdict
    notebook: str | None
    estimates: tuple[Estimate, ...]
    summary: str | None
    corpus: str | None
    train_images: int | None


class Findings(BaseModel):
    """The whole of ``findings.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edition: Edition
    claims: tuple[Entry, ...]
    recommendation: Recommendation | None = None


def findings_of(env: BuildEnvironment) -> Findings:
    """Return the findings of the book that is built; if they change, Sphinx reads the page again.

    Raises:
        FindingsError: As for :func:`read_findings`.
    """
    path = Path(env.srcdir) / FINDINGS
    env.note_dependency(str(path))
    return read_findings(path)


def read_findings(path: Path) -> Findings:
    """Read ``findings.json``.

    Raises:
        FindingsError: The file is missing or malformed.
    """
    return read_results(path, TypeAdapter(Findings))


def read_results(path: Path, kind: TypeAdapter[Results]) -> Results:
    """Read a JSON file of results beside the executed notebooks.

    Raises:
        FindingsError: The file is missing or malformed.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise FindingsError(
            f"no {path.stem} at {path}: run `study quick` or `study full` first ({error.strerror})"
        ) from error
    except ValidationError as error:
        raise FindingsError(f"{path} is malformed: {error}") from error


def find_value(findings: Findings, expression: str) -> str:
    """Return the text of the value that ``expression`` names, such as ``1.verdict``.

    ``expression`` is a claim's number, then names and positions, joined by dots; a colon and a
    number's format may follow. Without a format, floats have two decimals.

    Raises:
        FindingsError: There is no such claim or value, or the format does not suit the value.
    """
    path, _, style = expression.strip().partition(":")
    number, *steps = path.split(".")
    claims = {str(entry.claim): entry for entry in findings.claims}
    try:
        value: Any = claims[number].model_dump()
        for step in steps:
            value = value[int(step)] if isinstance(value, Sequence) else value[step]
        if value is None or isinstance(value, dict | list | tuple):
            raise ValueError(f"it is {'empty' if value is None else 'not a single value'}")
        return format_number(value, style) if isinstance(value, float) else format(value, style)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise FindingsError(
            f"findings.json has nothing to show for {expression!r}: {type(error).__name__} {error}"
        ) from error


def format_number(value: float, style: str = "") -> str:
    """Return ``value`` to two decimals, or in ``style``, with a true minus sign.

    >>> format_number(-0.125), format_number(0.004, "+.3f"), format_number(-0.0001)
    ('−0.12', '+0.004', '0.00')
    """
    text = format(value, style or ".2f")
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # A zero has no sign.
    return text.replace("-", "−")


class FindingRole(SphinxRole):
    """``{finding}`EXPRESSION` ``: one value of ``findings.json``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the value as plain text."""
        try:
            text = find_value(findings_of(self.env), self.text)
        except FindingsError as error:
            raise FindingsError(f"{self.env.docname}, line {self.lineno}: {error}") from error
        return [nodes.Text(text)], []


def setup(app: Sphinx) -> None:
    """Add the role to Sphinx."""
    app.add_role("finding", FindingRole())
