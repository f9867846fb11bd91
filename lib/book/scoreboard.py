"""The verdicts and numbers of ``findings.json`` in the book's prose, so that none is typed.

The directive ``{scoreboard}`` shows every claim with its verdict; the role
``{finding}`1.estimates.0.estimate:+.2f` `` gives one value, here the first estimate of claim 1.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from lib.findings import Edition, Estimate, Verdict

FINDINGS = PurePosixPath("book/results/findings.json")
"""Where the findings lie in the book's sources; the chapters they name lie beside them."""

SYMBOLS: dict[Verdict, str] = {
    "improves": "▲",
    "worsens": "▼",
    "equivalent": "=",
    "undecided": "?",
    "open": "○",
}


class FindingsError(SphinxError):
    """The findings are missing, malformed, or lack what a page asks for."""

    category = "Findings error"


class Entry(BaseModel):
    """One claim in ``findings.json``, answered or open."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: int
    title: str
    paper: str
    verdict: Verdict
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


def read_findings(path: Path) -> Findings:
    """Read ``findings.json``.

    Raises:
        FindingsError: There is none, or it is not laid out as it should be.
    """
    try:
        return Findings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FindingsError(
            f"no findings at {path}: run `study quick` or `study full` first ({error.strerror})"
        ) from error
    except ValidationError as error:
        raise FindingsError(f"{path} is malformed: {error}") from error


def find_value(findings: Findings, expression: str) -> str:
    """Return the text of the value that ``expression`` names, such as ``1.verdict``.

    It is a claim's number, then names and positions joined by dots, then, for a number, an optional
    colon and format. Numbers with decimals have two unless said otherwise.

    Raises:
        FindingsError: There is no such claim or value, or it can't be formatted like that.
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
        text = text.lstrip("+-")  # what rounds to nothing has no sign
    return text.replace("-", "−")


class FindingRole(SphinxRole):
    """``{finding}`EXPRESSION` ``: one value of findings.json."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the value as plain text."""
        try:
            text = find_value(_findings_of(self.env), self.text)
        except FindingsError as error:
            raise FindingsError(f"{self.env.docname}, line {self.lineno}: {error}") from error
        return [nodes.Text(text)], []


class VerdictRole(SphinxRole):
    """``{verdict}`improves` ``: a verdict as the badge that the scoreboard shows."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the badge."""
        for verdict in SYMBOLS:
            if self.text == verdict:
                return [badge(verdict)], []
        raise FindingsError(
            f"{self.env.docname}, line {self.lineno}: {self.text!r} is no verdict; "
            f"there are {', '.join(SYMBOLS)}"
        )


class Scoreboard(SphinxDirective):
    """``{scoreboard}``: each claim, what the paper says, the verdict, what was found."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        findings = _findings_of(self.env)
        rows = [_row("Claim", "Verdict", "What we find")]
        rows += [_claim_row(entry) for entry in findings.claims]
        columns = [nodes.colspec(colwidth=width) for width in (36, 14, 50)]
        group = nodes.tgroup(
            "", *columns, nodes.thead("", rows[0]), nodes.tbody("", *rows[1:]), cols=len(columns)
        )
        return [nodes.container("", nodes.table("", group), classes=["scoreboard"])]


def badge(verdict: Verdict) -> nodes.inline:
    """Return ``verdict`` as a badge, told apart by sign and word as well as by colour."""
    text = f"{SYMBOLS[verdict]} {verdict}"
    return nodes.inline(text, text, classes=["verdict", f"verdict-{verdict}"])


def _findings_of(env: BuildEnvironment) -> Findings:
    path = Path(env.srcdir) / FINDINGS
    env.note_dependency(str(path))
    return read_findings(path)


def _claim_row(entry: Entry) -> nodes.row:
    claim = [
        nodes.paragraph("", "", nodes.strong("", f"{entry.claim}. {entry.title}")),
        nodes.paragraph("", f"The paper: {entry.paper}", classes=["paper"]),
    ]
    return _row(claim, nodes.paragraph("", "", badge(entry.verdict)), _answer(entry))


def _answer(entry: Entry) -> list[nodes.Node]:
    if entry.notebook is None:
        return [nodes.paragraph("", "No chapter answers this yet.")]
    answer: list[nodes.Node] = [nodes.paragraph("", entry.summary or "")]
    by_pair = groupby(entry.estimates, key=lambda e: (e.method, e.baseline))
    for (method, baseline), estimates in by_pair:
        answer.append(nodes.paragraph("", f"{method}, against {baseline}:", classes=["compared"]))
        lines = [nodes.list_item("", _estimate(estimate)) for estimate in estimates]
        answer.append(nodes.bullet_list("", *lines, classes=["estimates"]))
    return [*answer, _source(entry)]


def _estimate(estimate: Estimate) -> nodes.paragraph:
    low, high = format_number(estimate.low, "+.2f"), format_number(estimate.high, "+.2f")
    return nodes.paragraph(
        "",
        f"{estimate.metric} ",
        nodes.strong("", format_number(estimate.estimate, "+.2f")),
        nodes.Text(f" [{low}, {high}] {estimate.unit}"),
    )


def _source(entry: Entry) -> nodes.paragraph:
    """Return what the answer rests on, with a link to the chapter."""
    seeds = sorted({estimate.seeds for estimate in entry.estimates})
    parts = [f"{'–'.join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:])))} seeds"] if seeds else []
    parts += [entry.corpus.capitalize()] if entry.corpus else []
    parts += [f"{entry.train_images:,} training images"] if entry.train_images else []
    link = addnodes.pending_xref(
        "",
        nodes.inline("", str(entry.notebook)),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{FINDINGS.parent / str(entry.notebook)}",
        refexplicit=False,
        refwarn=True,
    )
    return nodes.paragraph("", " · ".join(parts) + " · ", link, classes=["source"])


def _row(*cells: str | nodes.Node | list[nodes.Node]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        if isinstance(cell, str):
            cell = nodes.paragraph("", cell)
        row += nodes.entry("", *(cell if isinstance(cell, list) else [cell]))
    return row


def setup(app: Sphinx) -> None:
    """Add the directive and the role to Sphinx."""
    app.add_directive("scoreboard", Scoreboard)
    app.add_role("finding", FindingRole())
    app.add_role("verdict", VerdictRole())
