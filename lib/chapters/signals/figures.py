"""Charts of how far the two directions' signals differ, and why."""

import altair as alt
import pandas as pd

from lib.chapters.shared import charts


def identity_chart(table: pd.DataFrame) -> alt.LayerChart:
    """Draw the signal's difference against the difference in hubness, with the diagonal, from
    :func:`lib.chapters.signals.imbalance.hubness_table`."""
    table = table.assign(
        hubness=1e4 * (table["caption_hubs"] - table["image_hubs"]), signal=1e4 * table["signal"]
    )
    ends = [float(table[["hubness", "signal"]].min().min()), float(table["signal"].max())]
    line = (
        alt.Chart(pd.DataFrame({"hubness": ends, "signal": ends}))
        .mark_line(color=charts.GREY, strokeDash=[4, 4])
        .encode(alt.X("hubness:Q"), alt.Y("signal:Q"))
    )
    points = (
        alt.Chart(table)
        .mark_point(opacity=0.7)
        .encode(
            alt.X("hubness:Q").title("variance of column means − variance of row means, × 10⁻⁴"),
            alt.Y("signal:Q").title("mean row − mean column variance, × 10⁻⁴"),
            alt.Color("method:N").title(None).sort(list(dict.fromkeys(table["method"]))),
            tooltip=["method:N", "seed:Q", "batch:Q", alt.Tooltip("signal:Q", format=".4f")],
        )
    )
    return charts.page_wide(
        [line, points],
        300,
        "The scheduler's signal is a difference in hubness",
        "a point a batch of test pairs; dashed: equality",
    )


def ratio_chart(table: pd.DataFrame) -> alt.LayerChart:
    """Draw how far the two variances differ through training, from the table of
    :func:`lib.chapters.signals.imbalance.ratio_table`."""
    base = alt.Chart(table).encode(alt.X("step:Q").title("training step"))
    zero = alt.Chart(table).mark_rule(color=charts.GREY, strokeDash=[4, 4]).encode(y=alt.datum(0))
    band, line = charts.mean_line(
        base,
        alt.Y("low:Q").title("row variance ÷ column variance − 1, %"),
        alt.Y("mean:Q"),
        ["step:Q", alt.Tooltip("mean:Q", format="+.2f")],
    )
    return charts.page_wide(
        [zero, band, line],
        240,
        "How far the variances of the two directions differ",
        "of the fixed loss's similarities, batch by batch; mean and range over seeds",
    )
