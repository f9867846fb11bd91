"""Figures of the chapters on what the scheduler sees and on its controls."""

import altair as alt
import pandas as pd

from lib.charts import GREY
from lib.figures import difference_layers, verdict_colour


def identity_chart(table: pd.DataFrame) -> alt.LayerChart:
    """The signal's difference against the difference in hubness: the identity is the diagonal.

    Args:
        table: Rows of :func:`lib.imbalance.hubness_table`.
    """
    table = table.assign(
        hubness=1e4 * (table["caption_hubs"] - table["image_hubs"]), signal=1e4 * table["signal"]
    )
    ends = [float(table[["hubness", "signal"]].min().min()), float(table["signal"].max())]
    line = (
        alt.Chart(pd.DataFrame({"hubness": ends, "signal": ends}))
        .mark_line(color=GREY, strokeDash=[4, 4])
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
    layers: alt.LayerChart = line + points
    return layers.properties(
        width="container",
        height=300,
        title=alt.Title(
            "The scheduler's signal is a difference in hubness",
            subtitle="a point a batch of test pairs; dashed: equality",
        ),
    )


def ratio_chart(table: pd.DataFrame) -> alt.LayerChart:
    """How far the two variances differ through training, in percent.

    Args:
        table: ``condition``, ``step``, ``mean``, ``low``, ``high`` of the ratio − 1, in percent.
    """
    base = alt.Chart(table).encode(alt.X("step:Q").title("training step"))
    zero = alt.Chart(table).mark_rule(color=GREY, strokeDash=[4, 4]).encode(y=alt.datum(0))
    band = base.mark_area(opacity=0.2).encode(
        alt.Y("low:Q").title("row variance ÷ column variance − 1, %"), alt.Y2("high:Q")
    )
    line = base.mark_line().encode(
        alt.Y("mean:Q"), tooltip=["step:Q", alt.Tooltip("mean:Q", format="+.2f")]
    )
    layers: alt.LayerChart = zero + band + line
    return layers.properties(
        width="container",
        height=240,
        title=alt.Title(
            "How far the variances of the two directions differ",
            subtitle="of the fixed loss's similarities, batch by batch; mean and range over seeds",
        ),
    )


def response_chart(
    table: pd.DataFrame, x: str, x_title: str, title: str, margin: float
) -> alt.FacetChart:
    """Paired differences from the fixed loss against a constant, a panel a direction.

    Args:
        table: ``metric``, ``estimate``, ``low``, ``high`` (points), ``verdict`` and the constant.
        x: Its column: numbers, drawn in their order and evenly spaced.
        x_title: What it is.
        title: Of the chart.
        margin: Half-width of the band inside which a difference counts as none.
    """
    table = table.assign(outside=-margin, inside=margin).sort_values(x)
    order = [f"{value:g}" for value in sorted(table[x].unique())]
    table["place"] = table[x].map("{:g}".format)
    base = alt.Chart(table).encode(alt.X("place:O").sort(order).title(x_title).axis(labelAngle=0))
    band = base.mark_area(opacity=0.12, color=GREY).encode(
        alt.Y("outside:Q").title("difference in points"), alt.Y2("inside:Q")
    )
    zero = base.mark_rule(color=GREY).encode(y=alt.datum(0))
    line = base.mark_line(color=GREY, strokeWidth=1).encode(alt.Y("estimate:Q"))
    bars = base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q"), alt.Y2("high:Q"), verdict_colour())
    points = base.mark_point(size=60, opacity=1).encode(
        alt.Y("estimate:Q"),
        verdict_colour(),
        tooltip=[
            "place:O",
            "verdict:N",
            *(alt.Tooltip(f"{c}:Q", format="+.2f") for c in ("estimate", "low", "high")),
        ],
    )
    layers = alt.layer(band, zero, line, bars, points).properties(width=270, height=240)
    return layers.facet(column=alt.Column("metric:N").title(None)).properties(
        title=alt.Title(
            title, subtitle=f"paired over seeds, 95 % intervals; grey band: ±{margin:g} points"
        )
    )


def attribution_chart(table: pd.DataFrame, margin: float) -> alt.FacetChart:
    """What each part adds to a scheduler's gain, a row a scheduler and a column a direction.

    Args:
        table: Rows of :func:`lib.controls.attribution`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    layers = difference_layers(
        table, margin, "part", "points", named=("scheduler", "method", "baseline")
    )
    layers = layers.properties(width=215, height=alt.Step(22))
    return layers.facet(
        column=alt.Column("metric:N").title(None),
        row=alt.Row("scheduler:N")
        .title(None)
        .sort(list(dict.fromkeys(table["scheduler"])))
        .header(labelAngle=0, labelAlign="left", labelOrient="top"),
    ).properties(
        title=alt.Title(
            "Where the gain of a scheduled temperature comes from",
            subtitle=f"paired over seeds, 95 % intervals; grey band: ±{margin:g} points",
        )
    )
