"""Figures of the chapter on sensitivity."""

import altair as alt
import pandas as pd

from lib.chapters.shared import charts


def size_chart(table: pd.DataFrame, margin: float) -> alt.FacetChart:
    """Draw the difference from the fixed loss against the number of training images.

    Args:
        table: Rows of :func:`lib.chapters.sensitivity.sizes.against_fixed`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    methods = list(dict.fromkeys(table["method"]))
    table = table.assign(inside=margin, outside=-margin)
    base = alt.Chart(table).encode(
        alt.X("train_images:Q")
        .scale(type="log", nice=False)
        .title("training images")
        .axis(values=sorted(int(n) for n in table["train_images"].unique()), format=",d")
    )
    colour = alt.Color("method:N").title(None).sort(methods)
    colour = colour.legend(symbolOpacity=1, labelLimit=0)
    band = base.mark_area(opacity=0.12, color=charts.GREY).encode(
        alt.Y("mean(outside):Q").title("difference in points"), alt.Y2("mean(inside):Q")
    )
    zero = base.mark_rule(color=charts.GREY).encode(y=alt.datum(0))
    images = alt.Tooltip("train_images:Q", format=",d", title="training images")
    lines = charts.mean_line(
        base.encode(colour),
        alt.Y("low:Q"),
        alt.Y("estimate:Q"),
        ["method:N", images, "verdict:N", *charts.interval_tooltip("+.2f", "estimate")],
        point=True,
    )
    return charts.difference_panels(
        [band, zero, *lines],
        charts.difference_title(
            "What each setting adds to the tuned fixed loss, by size of the training set",
            f"±{margin:g} points",
        ),
        (265, 280),
        column=alt.Column("metric:N").title(None),
    )


def factor_chart(table: pd.DataFrame, margin: float) -> alt.FacetChart:
    """Draw the difference from the fixed loss at each level of each factor: one row per level, one
    column per method and direction.

    Args:
        table: Rows of :func:`lib.chapters.sensitivity.levels.compare_levels`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    table = table.assign(panel=table["method"] + " | " + table["metric"])
    layers = charts.difference_layers(table, margin, "level", "points", named=["method"])
    ordered = table.sort_values("method", kind="stable", ascending=False)["panel"]
    column = alt.Column("panel:N").title(None).sort(list(dict.fromkeys(ordered)))
    # A panel is narrower than the name of a method.
    column = column.header(labelExpr="split(replace(datum.label, ' × ', ' | × '), ' | ')")
    title = alt.Title(
        "The same comparison under other settings",
        subtitle=f"against the fixed loss under the same; grey band: ±{margin:g} points",
    )
    return charts.difference_panels(layers, title, (92, alt.Step(18)), column=column)
