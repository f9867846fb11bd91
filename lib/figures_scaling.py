"""Figures of the chapter on running a sweep elsewhere."""

import altair as alt
import pandas as pd

from lib.charts import BLUE, GREY, VERMILLION


def speed_chart(times: pd.DataFrame) -> alt.LayerChart:
    """Runs a minute against the number of processes that share the machine's cores.

    Args:
        times: Of :func:`lib.scaling.scaling_tables`.
    """
    table = times.assign(rate=60 * times["runs"] / times["seconds"])
    alone = table[table["workers"] == 0].assign(label="without other processes")
    spread = table[table["workers"] > 0].sort_values("workers")
    x = alt.X("workers:Q").title("processes").axis(tickMinStep=1, format="d").scale(zero=False)
    y = alt.Y("rate:Q").title("runs a minute").scale(zero=True)
    tooltip = [alt.Tooltip("workers:Q"), alt.Tooltip("rate:Q", format=".1f", title="runs a minute")]
    line = alt.Chart(spread).mark_line(color=BLUE).encode(x, y)
    points = (
        alt.Chart(spread).mark_point(color=BLUE, filled=True, size=70).encode(x, y, tooltip=tooltip)
    )
    level = alt.Chart(alone).mark_rule(color=VERMILLION).encode(y, tooltip=tooltip)
    name = (
        alt.Chart(alone)
        .mark_text(align="left", dx=4, dy=-7, color=VERMILLION)
        .encode(y, alt.Text("label:N"), x=alt.value(0))
    )
    layers: alt.LayerChart = level + name + line + points
    return layers.properties(
        width="container",
        height=260,
        title=alt.Title(
            "What more processes gain on one machine",
            subtitle=f"all of them share its {int(alone['cores'].iloc[0])} cores",
        ),
    )


def plan_chart(planned: pd.DataFrame, runs: int, limit: int) -> alt.LayerChart:
    """The time of a large sweep against the number of workers, both on log scales.

    Args:
        planned: Of :func:`lib.scaling.plan`.
        runs: How many the sweep has.
        limit: Workers beyond which more are no help.
    """
    minutes = planned.assign(
        total=planned["total"] / 60,
        **{name: planned[name] / 60 for name in ("training", "keeping")},
    )
    parts = minutes.melt("workers", ["total", "training", "keeping"], "part", "minutes")
    parts["part"] = parts["part"].replace(
        {"total": "the sweep", "training": "a worker's training", "keeping": "keeping all records"}
    )
    order = ["the sweep", "a worker's training", "keeping all records"]
    lines = (
        alt.Chart(parts)
        .mark_line(point=True)
        .encode(
            alt.X("workers:Q").scale(type="log").title("workers (log scale)"),
            alt.Y("minutes:Q").scale(type="log").title("minutes (log scale)"),
            alt.Color("part:N").title(None).sort(order),
            alt.StrokeDash("part:N").sort(order).legend(None),
            tooltip=["part:N", "workers:Q", alt.Tooltip("minutes:Q", format=".3g")],
        )
    )
    end = (
        alt.Chart(pd.DataFrame({"workers": [limit]}))
        .mark_rule(color=GREY, strokeDash=[4, 4])
        .encode(alt.X("workers:Q"), tooltip=[alt.Tooltip("workers:Q", title="useful workers")])
    )
    layers: alt.LayerChart = lines + end
    return layers.properties(
        width="container",
        height=300,
        title=alt.Title(
            f"A sweep of {runs:,} runs, reckoned",
            subtitle=f"dashed upright: beyond {limit:,} workers, more are no help",
        ),
    )
