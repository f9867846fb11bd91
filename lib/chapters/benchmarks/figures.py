"""Figures of the chapter on what the package costs."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from lib.chapters.shared import charts

OURS = (
    "scheduled loss",
    "ours, not scheduled",
    "scheduler alone",
    "ours, in stacks",
    "recall_at_k",
)
"""The package's own ways, drawn in blue."""


def ratio_chart(
    table: pd.DataFrame,
    value: str,
    x_title: str,
    title: str,
    subtitle: str,
    *,
    panel: str = "",
    target: float | None = None,
) -> alt.LayerChart:
    """Draw one point per way on a logarithmic axis, the package's own in blue, with its number.

    Args:
        table: ``way`` and the value.
        value, x_title: The column that is drawn, and its axis's title with the unit.
        title, subtitle: Of the chart.
        panel: What this chart shows, if several stand below each other; it follows the title.
        target: The value of a dashed line.
    """
    table = table.sort_values(value, kind="stable")
    table = table.assign(
        whose=["this package" if way in OURS else "others" for way in table["way"]],
        label=[f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in table[value]],
    )
    low, high = float(table[value].min()), float(table[value].max())
    x = alt.X(f"{value}:Q").title(x_title)
    # Room for the number beside the last point.
    x = x.scale(type="log", nice=False, domain=[0.8 * low, 1.6 * high])
    rows = alt.Y("way:N").sort(table["way"].tolist()).title(None).axis(labelLimit=320, grid=True)
    colour = alt.Color("whose:N").title(None)
    colour = colour.scale(domain=["this package", "others"], range=[charts.BLUE, charts.GREY])
    tooltip = ["way:N", alt.Tooltip(f"{value}:Q", format=",.4~r", title=x_title)]
    base = alt.Chart(table)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        x, rows, colour, tooltip=tooltip
    )
    labels = base.mark_text(align="left", dx=8, color=charts.INK).encode(x, rows, text="label:N")
    layers = [points + labels]
    if target is not None:
        rule = base.mark_rule(color=charts.VERMILLION, strokeDash=[5, 3])
        layers.insert(0, rule.encode(x=alt.datum(target)))
    return charts.page_wide(layers, alt.Step(26), f"{title}: {panel}" if panel else title, subtitle)


def line_chart(
    table: pd.DataFrame,
    x: str,
    y: str,
    titles: Sequence[str],
    title: str,
    subtitle: str,
    *,
    colour: str | None = None,
    rule: float | None = None,
) -> alt.LayerChart:
    """Draw lines with points over a logarithmic axis of sizes.

    Args:
        table: The columns that are drawn.
        x, y: The columns of the size and of what is measured.
        titles: Of both axes.
        title, subtitle: Of the chart.
        colour: The column with one line per value.
        rule: The height of a dashed line.
    """
    base = alt.Chart(table).encode(
        alt.X(f"{x}:Q")
        .scale(type="log", nice=False)
        .title(titles[0])
        .axis(values=sorted(set(table[x])), format=",d"),
        alt.Y(f"{y}:Q").scale(zero=True).title(titles[1]),
        tooltip=[
            alt.Tooltip(f"{x}:Q", format=",d"),
            *([f"{colour}:N"] if colour else []),
            alt.Tooltip(f"{y}:Q", format=",.3~f"),
        ],
    )
    if colour:
        base = base.encode(
            alt.Color(f"{colour}:N")
            .title(None)
            .sort(list(dict.fromkeys(table[colour])))
            .legend(labelLimit=320)
        )
    parts = [base.mark_line(), base.mark_point(filled=True, size=60)]
    if rule is not None:
        dashed = alt.Chart(table).mark_rule(color=charts.VERMILLION, strokeDash=[5, 3])
        parts.append(dashed.encode(y=alt.datum(rule)))
    return charts.page_wide(parts, 240, title, subtitle)
