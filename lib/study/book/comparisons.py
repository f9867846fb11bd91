"""The directive ``{comparisons}``: every comparison of the book, by chapter and question."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes  # type: ignore[import-untyped]
from pydantic import TypeAdapter
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lib.chapters.shared.figures import rounded_factor, rounded_p
from lib.chapters.shared.registry import COMPARISONS, RegisteredComparison
from lib.study.book.scoreboard import badge, chapter_link
from lib.study.book.values import format_number, read_results

HEADINGS = (
    *("compared", "metric", "images", "setting", "seeds", "difference [95 %]"),
    *("p", "p, adjusted", "Bayes factor", "verdict"),
)
_ROWS = TypeAdapter(list[RegisteredComparison])


class ComparisonsDirective(SphinxDirective):
    """``{comparisons}``: a folded table per question, under a sentence that counts them all."""

    def run(self) -> list[nodes.Node]:
        """Return the sentence and the tables."""
        path = Path(self.env.srcdir) / COMPARISONS
        self.env.note_dependency(str(path))
        rows = read_comparisons(path)
        parts: list[nodes.Node] = [nodes.paragraph("", total(rows))]
        for (notebook, question), group in groupby(rows, key=lambda r: (r.notebook, r.question)):
            of_one = list(group)
            head = nodes.paragraph("", f"{question.capitalize()}: {counted(of_one)}. ")
            head += chapter_link(notebook)
            parts += [head, nodes.raw("", table(of_one), format="html")]
        return parts


def read_comparisons(path: Path) -> list[RegisteredComparison]:
    """Read ``comparisons.json``.

    Raises:
        FindingsError: The file is missing or malformed.
    """
    return read_results(path, _ROWS)


def total(rows: Sequence[RegisteredComparison]) -> str:
    """Return a sentence on all comparisons and their verdicts."""
    return f"{len(rows):,} comparisons: {counted(rows)}."


def counted(rows: Sequence[RegisteredComparison]) -> str:
    """Return the number of comparisons per verdict."""
    verdicts = [row.verdict for row in rows]
    order = ("improves", "worsens", "equivalent", "undecided")
    return ", ".join(f"{verdicts.count(v)} {v}" for v in order if v in verdicts)


def table(rows: Sequence[RegisteredComparison]) -> str:
    """Return comparisons as an HTML table that opens on request."""
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return (
        f'<details class="comparisons"><summary>{len(rows)} comparisons</summary>'
        f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</details>"
    )


def _cells(row: RegisteredComparison) -> str:
    texts = (
        f"{row.method} − {row.baseline}", row.metric, f"{row.train_images:,}", row.setting,
        str(row.seeds), _difference(row), rounded_p(row.p), rounded_p(row.p_adjusted or 0.0),
        rounded_factor(row.bayes_factor), badge(row.verdict).astext(),
    )  # fmt: skip
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _difference(row: RegisteredComparison) -> str:
    if row.identical == row.seeds:
        return f"identical in all {row.seeds} runs"
    digits = 2 if row.unit in ("points", "epochs") else 4
    numbers = (format_number(value, f"+.{digits}f") for value in (row.estimate, row.low, row.high))
    return "{} [{}, {}]".format(*numbers)


def setup(app: Sphinx) -> None:
    """Add the directive to Sphinx."""
    app.add_directive("comparisons", ComparisonsDirective)
