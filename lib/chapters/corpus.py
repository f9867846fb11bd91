"""The corpus and what a training pair is worth."""

import base64
import html
import io

import altair as alt
import pandas as pd
from IPython.display import HTML

from lib.chapters.shared import charts
from lib.chapters.shared.figures import DIRECTIONS, show_html
from lib.datasets import CORPORA, load_corpus


def chance_recall(facts: pd.DataFrame) -> float:
    """Return R@1 of a random ranking of the test images, in percent."""
    return 100 / float(facts.set_index("split").loc["test", "images"])


def examples(corpus: str, count: int = 4, root: str = "") -> HTML:
    """Return the first ``count`` training images of a corpus with their captions.

    A corpus that may not be republished is not loaded; a sentence stands in place of its images.
    """
    if not CORPORA[corpus].redistributable:
        return show_html(
            "<p>The photographs and captions of this corpus may not be republished, so no example "
            "stands here.</p>"
        )
    loaded = load_corpus(corpus, root=root)
    figures = []
    for sample in loaded.split("train")[:count]:
        buffer = io.BytesIO()
        loaded.load_image(sample).save(buffer, format="PNG", optimize=True)
        picture = base64.b64encode(buffer.getvalue()).decode()
        lines = "".join(f"<li>{html.escape(caption)}</li>" for caption in sample.captions)
        figures.append(
            f'<figure><img alt="{html.escape(sample.captions[0])}" '
            f'src="data:image/png;base64,{picture}"><figcaption><ul>{lines}</ul></figcaption>'
            "</figure>"
        )
    return show_html(f'<div class="contact-sheet">{"".join(figures)}</div>')


def learning_curve(table: pd.DataFrame, chance: float) -> alt.LayerChart:
    """Draw recall against the number of training images, one line per direction with its interval.

    Args:
        table: ``images``, ``direction``, ``mean``, ``low``, ``high`` (percent).
        chance: Recall of a random ranking of images, percent.
    """
    named = table.assign(direction=table["direction"].map(DIRECTIONS))
    x = alt.X("images:Q").scale(type="log", nice=False).title("training images (log scale)")
    x = x.axis(values=sorted(named["images"].unique().tolist()), format="d")
    colour = alt.Color("direction:N").title(None)
    base = alt.Chart(named).encode(x=x, color=colour)
    band, line = charts.mean_line(
        base,
        alt.Y("low:Q").title("test R@1, %"),
        alt.Y("mean:Q"),
        ["images:Q", "direction:N", *charts.interval_tooltip()],
        point=True,
    )
    floor = (
        alt.Chart(pd.DataFrame({"chance": [chance], "label": ["chance"]}))
        .mark_rule(strokeDash=[4, 4], color=charts.GREY)
        .encode(alt.Y("chance:Q"), tooltip=["label:N", alt.Tooltip("chance:Q", format=".2f")])
    )
    return charts.page_wide(
        [band, line, floor],
        300,
        "What a training pair is worth",
        "mean over seeds with its 95 % interval; dashed: chance",
    )
