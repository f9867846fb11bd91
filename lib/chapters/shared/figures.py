"""Figures and tables that several chapters show; each takes a tidy table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import scipy.stats
from IPython.display import HTML

from lib.chapters.shared import charts

DIRECTIONS = {"i2t": "image → text", "t2i": "text → image"}

METRICS = {
    "i2t_r1": "R@1 i → t",
    "i2t_r5": "R@5 i → t",
    "i2t_r10": "R@10 i → t",
    "t2i_r1": "R@1 t → i",
    "t2i_r5": "R@5 t → i",
    "t2i_r10": "R@10 t → i",
    "rsum": "rSum",
    "i2t_median_rank": "median rank i → t",
    "t2i_median_rank": "median rank t → i",
}
"""Test metrics and how a table heads them; recalls in percent."""

MAX_POINTS = 1500
"""A longer series is thinned, so that a page stays small."""


def difference_chart(
    table: pd.DataFrame, margin: float, gains: Mapping[str, float] | None, title: str
) -> alt.FacetChart:
    """Draw paired differences with their intervals, one panel per metric.

    Args:
        table: ``method``, ``metric``, ``estimate``, ``low``, ``high``, ``wide_low``, ``wide_high``
            (points), ``verdict``.
        margin: Half-width of the band inside which a difference counts as none.
        gains: Metric to the gain that the paper reports, drawn as a dashed line; None if the paper
            does not compare this.
        title: What is compared with what.
    """
    if gains:
        table = table.assign(paper=table["metric"].map(gains))
    layers = charts.difference_layers(table, margin, "method", "difference in points")
    if gains:
        claim = (
            alt.Chart(layers[0].data)
            .mark_rule(color=charts.VERMILLION, strokeDash=[5, 3])
            .encode(
                alt.X("mean(paper):Q"),
                tooltip=[alt.Tooltip("mean(paper):Q", title="the paper's gain")],
            )
        )
        layers.append(claim)
    dashed = ", dashed: the paper's gain" if gains else ""
    heading = charts.difference_title(title, f"±{margin:g} points{dashed}")
    return charts.difference_panels(layers, heading)


def signed(value: float) -> str:
    """Write a difference with its sign and two decimals, and none as ``+0.00``.

    >>> signed(-0.001), signed(0.574), signed(-0.25)
    ('+0.00', '+0.57', '-0.25')
    """
    return f"{round(value, 2) + 0.0:+.2f}"


def with_interval(estimate: float, low: float, high: float) -> str:
    """Write a difference with its interval.

    >>> with_interval(0.574, -0.001, 1.1)
    '+0.57 [+0.00, +1.10]'
    """
    return f"{signed(estimate)} [{signed(low)}, {signed(high)}]"


def difference_text(row: Any) -> str:
    """Write a row of :func:`lib.chapters.shared.verdicts.against`: the difference with its
    interval, or that there is none at any seed.

    >>> row = {"estimate": 0.5, "low": 0.1, "high": 0.9, "identical": 0, "seeds": 20}
    >>> [difference_text(one) for one in pd.DataFrame([row]).itertuples()]
    ['+0.50 [+0.10, +0.90]']
    """
    if row.identical == row.seeds:
        return f"identical in all {row.seeds} runs"
    return with_interval(row.estimate, row.low, row.high)


def rounded_p(p: float) -> str:
    """Write a p-value with three decimals.

    >>> rounded_p(0.0004), rounded_p(0.04)
    ('< 0.001', '0.040')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def rounded_factor(factor: float) -> str:
    """Write a Bayes factor for an effect: how many times likelier the runs are if there is one.

    >>> rounded_factor(2.345), rounded_factor(0.25), rounded_factor(1234.0), rounded_factor(0.0001)
    ('2.3', '1/4.0', '> 1,000', '< 1/1,000')
    """
    if factor >= 1:
        return "> 1,000" if factor > 1000 else f"{factor:.1f}"
    return "< 1/1,000" if factor < 0.001 else f"1/{1 / factor:.1f}"


def difference_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of :func:`lib.chapters.shared.verdicts.against` for a page; the baseline is a
    column only if there are several."""
    several = table["baseline"].nunique() > 1
    return pd.DataFrame(
        {
            "method": table["method"],
            **({"against": table["baseline"]} if several else {}),
            "metric": table["metric"],
            "difference, points": [difference_text(row) for row in table.itertuples()],
            "p, adjusted": table["p_adjusted"].map(rounded_p),
            "Bayes factor": table["bayes_factor"].map(rounded_factor),
            "verdict": table["verdict"],
        }
    )


def path_chart(table: pd.DataFrame, y: str, title: str) -> alt.LayerChart:
    """Draw a value of every step through training, one line per method.

    Args:
        table: ``method``, ``step``, ``mean``, ``low``, ``high`` (over seeds). A long one is thinned
            to every second, third … step.
        y, title: The titles of the axis and of the chart.
    """
    keep = max(1, -(-len(table) // MAX_POINTS))
    table = table[table["step"] % keep == 0] if keep > 1 else table
    base = alt.Chart(table).encode(
        alt.X("step:Q").title("training step"),
        alt.Color("method:N").sort(list(dict.fromkeys(table["method"]))).title(None),
    )
    band, line = charts.mean_line(
        base,
        alt.Y("low:Q").scale(zero=False).title(y),
        alt.Y("mean:Q"),
        ["method:N", "step:Q", alt.Tooltip("mean:Q", format=".4f")],
    )
    thinned = f"; every {keep}th step" if keep > 1 else ""
    return charts.page_wide([band, line], 260, title, f"mean and range over seeds{thinned}")


def show_table(
    table: pd.DataFrame,
    names: Mapping[str, str] | None = None,
    digits: Mapping[str, int] | None = None,
) -> HTML:
    """Return a table for a page: chosen columns under readable names, numbers rounded, escaped.

    Args:
        table: Any table.
        names: Column to heading, in order; default, all columns as they are.
        digits: Column to decimals; other numbers get 2.
    """
    names = names or {column: column for column in table.columns}
    decimals = digits or {}
    shown = table[list(names)].copy()
    for column in names:
        if pd.api.types.is_float_dtype(table[column]):
            shown[column] = shown[column].map(_formatter(decimals.get(column, 2)))
    page = shown.rename(columns=dict(names)).to_html(index=False, border=0, na_rep="–")
    return show_html(page)


def show_html(text: str) -> HTML:
    """Return HTML for a page; data in the text must be escaped already."""
    return HTML(text)  # type: ignore[no-untyped-call]


def _formatter(digits: int) -> Callable[[float], str]:
    return lambda value: "–" if pd.isna(value) else f"{value:.{digits}f}"


def leaderboard(runs: pd.DataFrame) -> pd.DataFrame:
    """Return each method's test metrics as ``mean ± half-width of the 95 % interval``.

    The number of a method's collapsed runs, if any, follows its name.
    ``runs`` has one row per run: ``method``, ``collapsed`` and the columns of :data:`METRICS`.
    """
    methods = runs.groupby("method", sort=False)["collapsed"].agg(["sum", "size"])
    board = pd.DataFrame(
        {
            "method": [
                f"{method} ({lost} of {size} runs collapsed)" if lost else method
                for method, lost, size in methods.itertuples()
            ]
        }
    )
    for metric in METRICS:
        summary = summarise(runs, ["method"], metric)
        digits = 1 if "rank" in metric or metric == "rsum" else 2
        board[metric] = [
            f"{mean:.{digits}f} ± {mean - low:.{digits}f}"
            for mean, low in zip(summary["mean"], summary["low"], strict=True)
        ]
    return board


def summarise(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return the mean of a column over the rows of each group with its 95 % t interval."""
    grouped = table.groupby(list(by), sort=False)[value]
    summary = grouped.agg(["mean", "sem", "count"]).reset_index()
    half = summary["sem"] * scipy.stats.t.ppf(0.975, summary["count"] - 1)
    return summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)


def response_chart(
    table: pd.DataFrame, x: str, x_title: str, title: str, margin: float
) -> alt.FacetChart:
    """Draw paired differences from the fixed loss against a constant, one panel per direction.

    Args:
        table: ``metric``, ``estimate``, ``low``, ``high``, ``wide_low``, ``wide_high`` (points),
            ``verdict`` and the constant.
        x, x_title: The constant's column, drawn in order and evenly spaced, and the axis's title.
        title: Of the chart.
        margin: Half-width of the band inside which a difference counts as none.
    """
    table = table.assign(outside=-margin, inside=margin).sort_values(x)
    order = [f"{value:g}" for value in sorted(table[x].unique())]
    table["place"] = table[x].map("{:g}".format)
    base = alt.Chart(table).encode(alt.X("place:O").sort(order).title(x_title).axis(labelAngle=0))
    band = base.mark_area(opacity=0.12, color=charts.GREY).encode(
        alt.Y("outside:Q").title("difference in points"), alt.Y2("inside:Q")
    )
    zero = base.mark_rule(color=charts.GREY).encode(y=alt.datum(0))
    line = base.mark_line(color=charts.GREY, strokeWidth=1).encode(alt.Y("estimate:Q"))
    colour = charts.verdict_colour()
    bars = [
        base.mark_rule(strokeWidth=width).encode(alt.Y(f"{low}:Q"), alt.Y2(f"{high}:Q"), colour)
        for low, high, width in (("wide_low", "wide_high", 1), ("low", "high", 3))
    ]
    points = base.mark_point(size=60, opacity=1).encode(
        alt.Y("estimate:Q"),
        colour,
        tooltip=["place:O", "verdict:N", *charts.interval_tooltip("+.2f", "estimate")],
    )
    return charts.difference_panels(
        [band, zero, line, *bars, points],
        charts.difference_title(title, f"±{margin:g} points"),
        (270, 240),
        column=alt.Column("metric:N").title(None),
    )
