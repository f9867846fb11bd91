"""The first page's answers, from ``findings.json``: every claim with its verdict and its figure.

The directive ``{scoreboard}`` shows the claims under a one-line summary, ``{recommendation}`` the
recommended setting; the role ``{verdict}`improves` `` shows a badge.
"""

from collections.abc import Mapping, Sequence

from docutils import nodes  # type: ignore[import-untyped]
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from lib.chapters.shared.findings import ClaimVerdict, Estimate, Recommendation, claim
from lib.study.book.forest import SYMBOLS, digits_of, forest, panels, scale_of
from lib.study.book.values import FINDINGS, Entry, FindingsError, findings_of, format_number

ANSWERS: dict[ClaimVerdict, str] = {
    "improves": "Yes",
    "worsens": "No, it does worse",
    "equivalent": "No, it makes no difference that matters",
    "undecided": "Not decided by these runs",
    "open": "Not tested yet",
}
"""The answer to a claim, by verdict."""

_COUNTS = ("none", "one", "two", "three", "four", "five")
_SUMS: dict[ClaimVerdict, tuple[str, str]] = {
    "improves": ("{} is confirmed", "{} are confirmed"),
    "equivalent": ("in {} there is no difference that matters",) * 2,
    "worsens": ("in {} the opposite is found",) * 2,
    "undecided": ("{} is undecided", "{} are undecided"),
    "open": ("{} is not tested yet", "{} are not tested yet"),
}
"""The number of claims per verdict, in words: for one or none, and for several."""


class VerdictRole(SphinxRole):
    """``{verdict}`improves` ``: a verdict as the badge that the scoreboard shows."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the badge."""
        for verdict in SYMBOLS:
            if self.text == verdict:
                return [badge(verdict)], []
        raise FindingsError(
            f"{self.env.docname}, line {self.lineno}: {self.text!r} is not a verdict; "
            f"there are {', '.join(SYMBOLS)}"
        )


class Scoreboard(SphinxDirective):
    """``{scoreboard}``: a summary, then each claim with its answer, figure and chapter."""

    def run(self) -> list[nodes.Node]:
        """Return the list of claims."""
        findings = findings_of(self.env)
        entries, advice = findings.claims, findings.recommendation
        line = f"{bottom_line(entries)} {what_helps(advice)}".rstrip()
        summed = nodes.paragraph("", line, classes=["bottom-line"])
        return [nodes.container("", summed, *map(_claim, entries), classes=["scoreboard"])]


class RecommendationDirective(SphinxDirective):
    """``{recommendation}``: the recommended setting and its gain, or a note that there is none."""

    def run(self) -> list[nodes.Node]:
        """Return the setting's name, summary, values, figure and chapter."""
        advice = findings_of(self.env).recommendation
        if advice is None:
            return [nodes.paragraph("", "No setting has been recommended yet.")]
        head = nodes.paragraph("", "", nodes.strong("", advice.name), classes=["claim-head"])
        parts = [head, nodes.paragraph("", advice.summary)]
        if advice.settings:
            lines = [
                nodes.list_item("", nodes.paragraph("", f"{name}: {value}"))
                for name, value in advice.settings.items()
            ]
            parts.append(nodes.bullet_list("", *lines))
        parts += _figure(advice.estimates, {})
        parts.append(_source(_seeds(advice.estimates), advice.notebook))
        return [nodes.container("", *parts, classes=["recommendation"])]


def badge(verdict: ClaimVerdict) -> nodes.inline:
    """Return a badge with the sign and the word of ``verdict``, and with its colour."""
    text = f"{SYMBOLS[verdict]} {verdict}"
    return nodes.inline(text, text, classes=["verdict", f"verdict-{verdict}"])


def bottom_line(entries: Sequence[Entry]) -> str:
    """Return a sentence with the number of claims per verdict."""
    verdicts = [entry.verdict for entry in entries]
    parts = []
    for verdict, (singular, plural) in _SUMS.items():
        count = verdicts.count(verdict)
        if count or verdict == "improves":
            parts.append((plural if count > 1 else singular).format(_COUNTS[count]))
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"Of the paper’s {_COUNTS[len(verdicts)]} claims, {listed}."


def what_helps(advice: Recommendation | None) -> str:
    """Return a sentence on the recommended setting and its gain; empty if nothing gains."""
    if advice is None or not advice.estimates:
        return ""
    gains = " and ".join(_range(panel, {}) for panel in panels(advice.estimates))
    name = advice.name[:1].lower() + advice.name[1:]
    return f"What helps instead, against the tuned fixed loss: {name} ({gains})."


def answer(entry: Entry) -> str:
    """Return the answer to a claim in one line: yes or no, and the differences found."""
    gains = claim(entry.claim).gains
    ranges = [_range(panel, gains) for panel in panels(entry.estimates)]
    return f"{ANSWERS[entry.verdict]}{': ' * bool(ranges)}{' and '.join(ranges)}."


def _range(panel: Sequence[Estimate], gains: Mapping[str, float]) -> str:
    style = f"+.{digits_of(scale_of(panel, gains))}f"
    values = [estimate.estimate for estimate in panel]
    ends = dict.fromkeys(format_number(end, style) for end in (min(values), max(values)))
    return f"{' to '.join(ends)} {panel[0].unit}"


def _claim(entry: Entry) -> nodes.container:
    title = nodes.strong("", f"{entry.claim}. {entry.title}")
    head = [badge(entry.verdict), nodes.Text(" "), title]
    parts = [
        nodes.paragraph("", "", *head, classes=["claim-head"]),
        nodes.paragraph("", answer(entry), classes=["answer"]),
        *_figure(entry.estimates, claim(entry.claim).gains),
        nodes.paragraph("", f"The paper: {entry.paper}", classes=["paper"]),
    ]
    if entry.notebook is not None:
        parts.append(nodes.paragraph("", entry.summary or "", classes=["summary"]))
        made_of = _seeds(entry.estimates)
        made_of += [entry.corpus.capitalize()] if entry.corpus else []
        made_of += [f"{entry.train_images:,} training images"] if entry.train_images else []
        parts.append(_source(made_of, entry.notebook))
    return nodes.container("", *parts, classes=["claim"])


def _figure(estimates: Sequence[Estimate], gains: Mapping[str, float]) -> list[nodes.Node]:
    return [nodes.raw("", forest(estimates, gains), format="html")] if estimates else []


def _seeds(estimates: Sequence[Estimate]) -> list[str]:
    seeds = sorted({estimate.seeds for estimate in estimates})
    return [f"{'–'.join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:])))} seeds"] if seeds else []


def _source(made_of: Sequence[str], notebook: str) -> nodes.paragraph:
    """Return the data behind an answer, with a link to the chapter."""
    text = " · ".join([*made_of, "the evidence: "])
    return nodes.paragraph("", text, chapter_link(notebook), classes=["source"])


def chapter_link(notebook: str) -> addnodes.pending_xref:
    """Return a link to the chapter of a notebook."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", notebook),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{FINDINGS.parent / notebook}",
        refexplicit=False,
        refwarn=True,
    )


def setup(app: Sphinx) -> None:
    """Add the directives and the role to Sphinx."""
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("recommendation", RecommendationDirective)
    app.add_role("verdict", VerdictRole())
