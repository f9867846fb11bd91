"""The figures and tables of the chapter on speed of convergence."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from lib.chapters.convergence.speed import PRIMARY_SHARES, SHARES, target_name
from lib.chapters.shared import charts
from lib.chapters.shared.figures import summarise, with_interval
from lib.schedulers import ACTUATORS, SIGNALS

COLOURS = {
    "fixed": charts.INK,
    "learned τ": charts.PURPLE,
    "direction": charts.BLUE,
    "sharpness": charts.VERMILLION,
    "magnitude": charts.ORANGE,
    "sample": charts.GREEN,
}
"""The colour of what a method sets; any other actuator is grey."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Of the lines by signal, in the order of :data:`lib.schedulers.SIGNALS`; repeated if too few."""


def convergence_curves(
    curves: pd.DataFrame, reached: pd.DataFrame, share: float, target: float
) -> alt.HConcatChart:
    """Draw validation rSum through training, and the share of runs that have reached a target.

    Args:
        curves: Of :func:`lib.chapters.convergence.speed.curve_table`.
        reached: Of :func:`lib.chapters.convergence.speed.reached_table`.
        share: The target of the second panel, as a share of the baseline's best.
        target: Its mean over seeds, in rSum, drawn as a dashed line in the first panel.
    """
    set_by = curves[["method", "turns", "signal"]].drop_duplicates()
    means = summarise(curves, ["method", "epoch"], "rsum").merge(set_by, on="method")
    colour, width, dash = _method_channels(means)
    picked = alt.selection_point("picked", fields=["turns"], bind="legend")
    x = alt.X("epoch:Q").title("epoch").scale(nice=False)
    rsum = "validation rSum"
    band, line = charts.mean_line(
        alt.Chart(means).encode(x, colour, detail="method:N"),
        alt.Y("low:Q").scale(zero=False).title(rsum),
        alt.Y("mean:Q").scale(zero=False).title(rsum),
        ["method:N", "epoch:Q", *charts.interval_tooltip(".1f")],
        opacity=0.07,
        picked=picked,
    )
    level = alt.Chart(pd.DataFrame({"target": [target]})).encode(y=alt.Y("target:Q"))
    rule = level.mark_rule(color=charts.GREY, strokeDash=[5, 3])
    words = level.mark_text(align="left", baseline="top", dy=4, color=charts.INK).encode(
        x=alt.value(100), text=alt.value(f"{100 * share:g} % of fixed's best, mean")
    )
    steps = alt.Chart(reached).mark_line(interpolate="step-after")
    steps = steps.encode(
        x,
        alt.Y("reached:Q").title("runs there, %").scale(domain=[0, 100]),
        colour,
        dash,
        width,
        detail="method:N",
        opacity=alt.when(picked).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=[
            "method:N",
            alt.Tooltip("epoch:Q", format=".2f"),
            alt.Tooltip("reached:Q", format=".0f"),
        ],
    )
    left = alt.layer(band, rule, words, line.encode(dash, width)).properties(
        width=330, height=300, title=alt.Title("How high by when?", fontSize=12)
    )
    right = steps.properties(
        width=200,
        height=300,
        title=alt.Title(f"Who has reached {100 * share:g} % by when?", fontSize=12),
    )
    panels: alt.HConcatChart = alt.hconcat(left, right)
    return panels.properties(
        title=alt.Title(
            "Does a scheduler make the validation curve rise sooner?",
            subtitle="left: mean over seeds with its 95 % interval; right: share of runs, each "
            "against its own seed's target",
        )
    )


def _method_channels(means: pd.DataFrame) -> tuple[alt.Color, alt.Size, alt.StrokeDash]:
    """Return the colour and width by what a method sets, and the dashes by its signal."""
    known = [turned for turned in {**COLOURS, **ACTUATORS} if turned in set(means["turns"])]
    colour = (
        alt.Color("turns:N")
        .scale(domain=known, range=[COLOURS.get(turned, charts.GREY) for turned in known])
        .legend(alt.Legend(title="what is set (click)", symbolOpacity=1, symbolSize=100))
    )
    # The fixed loss is drawn wide, so that it is seen beneath a method that does nothing.
    width = (
        alt.Size("turns:N")
        .scale(type="ordinal", domain=known, range=[6 if t == "fixed" else 2 for t in known])
        .legend(None)
    )
    dashes = {signal: DASHES[place % len(DASHES)] for place, signal in enumerate(SIGNALS)}
    signals = [signal for signal in dashes if signal in set(means["signal"])]
    dash = (
        alt.StrokeDash("signal:N")
        .scale(domain=["none", *signals], range=[DASHES[0], *(dashes[s] for s in signals)])
        .legend(alt.Legend(title="by the signal", values=signals) if signals else None)
    )
    return colour, width, dash


def speed_differences(table: pd.DataFrame, margin: float, title: str) -> alt.FacetChart:
    """Draw paired differences in the time to the primary targets, one panel per target.

    Args:
        table: Of :func:`lib.chapters.convergence.speed.compare_speed`.
        margin: Half-width, in epochs, of the band inside which a difference counts as none.
        title: What is compared with what.
    """
    table = table[table["metric"].isin([target_name(share) for share in PRIMARY_SHARES])]
    layers = charts.difference_layers(table, margin, "method", "difference in epochs")
    heading = charts.difference_title(title, f"±{margin:g} epochs", "left of zero: faster; ")
    return charts.difference_panels(layers, heading)


def speed_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table of :func:`lib.chapters.convergence.speed.speed_summary` for a page."""
    names = [f"{100 * share:g}" for share in SHARES]
    return pd.DataFrame(
        {
            "method": summary["method"],
            **{
                f"to {name} %: epochs (steps)": [
                    f"{epochs:.2f} ({steps:.0f})" if np.isfinite(epochs) else "not reached"
                    for epochs, steps in zip(
                        summary[f"epochs_{name}"], summary[f"steps_{name}"], strict=True
                    )
                ]
                for name in names
            },
            f"runs never at {_listed(names)} %": [
                f"{_listed([row[f'censored_{name}'] for name in names])} of {row['runs']}"
                for row in summary.to_dict("records")
            ],
            "best epoch": summary["best_epoch"],
            "mean rSum − fixed": [
                "–" if method == "fixed" else with_interval(row.area, row.area_low, row.area_high)
                for method, row in zip(
                    summary["method"], summary.itertuples(index=False), strict=True
                )
            ],
        }
    )


def _listed(parts: Sequence[object]) -> str:
    return " / ".join(map(str, parts))
