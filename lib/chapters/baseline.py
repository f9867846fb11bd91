"""The fixed baseline: its tuning curve."""

import altair as alt
import pandas as pd

from lib.chapters.shared import charts
from lib.chapters.shared.figures import difference_text
from lib.chapters.shared.methods import CCA


def tuning_curve(table: pd.DataFrame) -> alt.LayerChart:
    """Draw validation rSum of the fixed baseline against the temperature, one line per learning
    rate, from the table of a :class:`lib.chapters.shared.tuning.Tuning`."""
    table = table.assign(
        low=table["validation_rsum"] - table["standard_error"].fillna(0),
        high=table["validation_rsum"] + table["standard_error"].fillna(0),
        rate=table["learning_rate"].map("{:g}".format),
    )
    base = alt.Chart(table).encode(
        alt.X("temperature:Q").scale(type="log", nice=False).title("temperature τ (log scale)"),
        alt.Color("rate:N").title("learning rate"),
    )
    y = alt.Y("validation_rsum:Q").scale(zero=False).title("validation rSum")
    tooltip = ["temperature:Q", "rate:N", alt.Tooltip("validation_rsum:Q", format=".1f")]
    line = base.mark_line(point=True).encode(y, tooltip=tooltip)
    bars = base.mark_rule().encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    ring = (
        alt.Chart(table[table["chosen"]])
        .mark_point(size=220, filled=False, color=charts.INK, strokeWidth=2)
        .encode(alt.X("temperature:Q"), alt.Y("validation_rsum:Q"), tooltip=tooltip)
    )
    return charts.page_wide(
        [line, bars, ring],
        300,
        "Tuning the fixed baseline on validation",
        "mean over tuning seeds ± one standard error; the ring is what was chosen",
    )


def closed_form(compared: pd.DataFrame) -> str:
    """Return a sentence on the heads in closed form, from rows of
    :func:`lib.chapters.shared.verdicts.against`."""
    rows = compared[compared["method"] == CCA]
    changes = ", ".join(
        f"{difference_text(row)} in {row.metric} ({row.verdict})" for row in rows.itertuples()
    )
    ahead = set(rows["verdict"]) == {"improves"}
    stronger = " The stronger baseline takes no step of training." if ahead else ""
    return f"{CCA} against the fixed loss: {changes}.{stronger}"
