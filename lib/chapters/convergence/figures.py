"""The figures and tables of the chapter on speed of convergence."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from lib.chapters.convergence.speed import PRIMARY, SHARES, target_name
from lib.chapters.shared.charts import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION
from lib.chapters.shared.figures import difference_layers, signed, summarise
from lib.schedulers import ACTUATORS, SIGNALS

COLOURS = {
    "fixed": INK,
    "learned τ": PURPLE,
    "direction": BLUE,
    "sharpness": VERMILLION,
    "magnitude": ORANGE,
    "sample": GREEN,
}
"""What a method turns, to its colour; any other actuator is grey."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Of the signals' lines, in the order of :data:`lib.schedulers.SIGNALS`; repeated if too few."""


def convergence_curves(
    curves: pd.DataFrame, reached: pd.DataFrame, share: float, target: float
) -> alt.HConcatChart:
    """Validation rSum through training, beside the share of runs that have reached a target.

    Args:
        curves: Of :func:`lib.chapters.convergence.speed.curve_table`.
        reached: Of :func:`lib.chapters.convergence.speed.reached_table`.
        share: The target of the second panel, as a share of the baseline's best.
        target: Its mean over seeds, in rSum, drawn as a dashed line in the first panel.
    """
    set_by = curves[["method", "turns", "signal"]].drop_duplicates()
    means = summarise(curves, ["method", "epoch"], "rsum").merge(set_by, on="method")
    known = [turned for turned in {**COLOURS, **ACTUATORS} if turned in set(means["turns"])]
    colour = (
        alt.Color("turns:N")
        .scale(domain=known, range=[COLOURS.get(turned, GREY) for turned in known])
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
    picked = alt.selection_point("picked", fields=["turns"], bind="legend")
    faded = alt.when(picked).then(alt.value(1)).otherwise(alt.value(0.1))
    x = alt.X("epoch:Q").title("epoch").scale(nice=False)
    base = alt.Chart(means).encode(x, colour, detail="method:N")
    y = alt.Y("mean:Q").scale(zero=False).title("validation rSum")
    band = base.mark_area().encode(
        alt.Y("low:Q").scale(zero=False).title("validation rSum"),
        alt.Y2("high:Q"),
        opacity=alt.when(picked).then(alt.value(0.07)).otherwise(alt.value(0)),
    )
    tooltip = [
        "method:N",
        "epoch:Q",
        *(alt.Tooltip(f"{c}:Q", format=".1f") for c in ("mean", "low", "high")),
    ]
    line = base.mark_line().encode(y, dash, width, opacity=faded, tooltip=tooltip)
    level = alt.Chart(pd.DataFrame({"target": [target]})).encode(y=alt.Y("target:Q"))
    rule = level.mark_rule(color=GREY, strokeDash=[5, 3])
    words = level.mark_text(align="left", baseline="top", dy=4, color=INK).encode(
        x=alt.value(100), text=alt.value(f"{100 * share:g} % of fixed's best, mean")
    )
    steps = (
        alt.Chart(reached)
        .mark_line(interpolate="step-after")
        .encode(
            x,
            alt.Y("reached:Q").title("runs there, %").scale(domain=[0, 100]),
            colour,
            dash,
            width,
            detail="method:N",
            opacity=faded,
            tooltip=[
                "method:N",
                alt.Tooltip("epoch:Q", format=".2f"),
                alt.Tooltip("reached:Q", format=".0f"),
            ],
        )
    )
    left = alt.layer(band, rule, words, line.add_params(picked)).properties(
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


def speed_differences(table: pd.DataFrame, margin: float, title: str) -> alt.FacetChart:
    """Paired differences in the time to the primary targets, a panel a target.

    Args:
        table: Of :func:`lib.chapters.convergence.speed.compare_speed`.
        margin: Half-width, in epochs, of the band inside which a difference counts as none.
        title: What is compared with what.
    """
    metrics = [target_name(share) for share in PRIMARY]
    table = table[table["metric"].isin(metrics)]
    layers = difference_layers(table, margin, "method", "difference in epochs")
    layers = layers.properties(width=205, height=alt.Step(24))
    return layers.facet(column=alt.Column("metric:N").title(None).sort(metrics)).properties(
        title=alt.Title(
            title,
            subtitle="left of zero: faster; paired over seeds, 95 % intervals; grey band: "
            f"±{margin:g} epochs",
        )
    )


def speed_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary of speed as a page shows it.

    Args:
        summary: Of :func:`lib.chapters.convergence.speed.speed_summary`.
    """
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
                "–"
                if method == "fixed"
                else f"{signed(row.area)} [{signed(row.area_low)}, {signed(row.area_high)}]"
                for method, row in zip(
                    summary["method"], summary.itertuples(index=False), strict=True
                )
            ],
        }
    )


def _listed(parts: Sequence[object]) -> str:
    return " / ".join(map(str, parts))
