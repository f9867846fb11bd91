"""Figures of the noise chapter: recall against noise, and what is lost against the fixed loss."""

import altair as alt
import pandas as pd

from lib.chapters.noise.robustness import JUDGED, condition_name, over_kinds
from lib.chapters.shared import charts
from lib.chapters.shared.figures import DIRECTIONS, difference_table, summarise

_PANELS = {"mismatched": "mismatched pairs", "captions": "noisy captions", "images": "noisy images"}


def training_curves(table: pd.DataFrame) -> alt.FacetChart:
    """Draw clean test R@1 against the rate of noise in training, one panel per kind and direction,
    from the table of :func:`lib.chapters.noise.robustness.noise_in_training`."""
    return _panels(
        table.assign(level=100 * table["level"]),
        "noisy training pairs, %",
        panel_width=150,
        title="How much recall does training noise cost?",
        subtitle="test R@1 on clean pairs, mean over seeds with its 95 % interval",
    )


def severity_curves(table: pd.DataFrame) -> alt.FacetChart:
    """Draw R@1 against the severity of noise in the test split, the mean over kinds, from the table
    of :func:`lib.chapters.noise.robustness.noise_at_test`."""
    return _panels(
        over_kinds(table),
        "severity (0: clean)",
        panel_width=240,
        title="How much recall does noise at test time cost?",
        subtitle="trained on clean pairs; mean over kinds of noise and over seeds, 95 % interval",
    )


def kind_curves(table: pd.DataFrame) -> alt.FacetChart:
    """Draw rSum against the severity of each kind of noise in the test split, from the table of
    :func:`lib.chapters.noise.robustness.noise_at_test`."""
    curves = summarise(table, ["method", "kind", "level"], "rsum")
    layers = _lines(curves, "kind", "severity (0: clean)", alt.Y("mean:Q").scale(zero=False))
    kinds = list(dict.fromkeys(curves["kind"]))
    return (
        layers.properties(width=155, height=110)
        .facet(alt.Facet("kind:N").title(None).sort(kinds), columns=3)
        .properties(
            title=alt.Title(
                "Which noise hurts, and does any method bear it better?",
                subtitle="test rSum after training on clean pairs; mean over seeds, 95 % interval",
            )
        )
    )


def degradation_chart(table: pd.DataFrame, margin: float) -> alt.FacetChart:
    """Draw paired differences in what is lost to noise, one row of panels per condition.

    Args:
        table: Of :func:`lib.chapters.noise.robustness.compare_degradation`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    layers = charts.difference_layers(
        table, margin, "method", "difference in points lost", named=["condition"]
    )
    conditions = list(dict.fromkeys(table["condition"]))
    row = alt.Row("condition:N").title(None).sort(conditions)
    row = row.header(labelAngle=0, labelAlign="left", labelExpr="split(datum.label, ', ')")
    panels = charts.difference_panels(
        layers,
        charts.difference_title(
            "Is less lost to noise than with the fixed loss?",
            f"±{margin:g} points",
            "left of zero: less; ",
        ),
        (170, alt.Step(18)),
        column=alt.Column("metric:N").title(None),
        row=row,
    )
    return panels.properties(spacing={"row": 10})


def loss_table(training: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return R@1 without noise and at the :data:`lib.chapters.noise.robustness.JUDGED` noise, each
    ``clean → noisy (change in percent of clean)``, the means over seeds and kinds of test noise.

    Args:
        training: Of :func:`lib.chapters.noise.robustness.noise_in_training`.
        test: Of :func:`lib.chapters.noise.robustness.noise_at_test`.
    """
    tables = {"training": training, "test": over_kinds(test)}
    recalls = [f"{direction}_r1" for direction in DIRECTIONS]
    rows = []
    for (place, what), level in JUDGED.items():
        table = tables[place][tables[place]["what"] == what]
        clean, noisy = (
            table[table["level"] == at].groupby("method", sort=False)[recalls].mean()
            for at in (0, level)
        )
        for method, means in noisy.iterrows():
            rows.append(
                {"noise": condition_name(place, what, level), "method": method}
                | {
                    f"R@1 {name}": f"{whole:.2f} → {left:.2f} ({100 * (left / whole - 1):+.0f} %)"
                    for name, whole, left in zip(
                        DIRECTIONS.values(), clean.loc[method], means, strict=True
                    )
                }
            )
    return pd.DataFrame(rows)


def degradation_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of :func:`lib.chapters.noise.robustness.compare_degradation` for a page."""
    shown = difference_table(table)
    shown.insert(1, "noise", table["condition"])
    return shown


def _panels(
    table: pd.DataFrame, axis: str, *, panel_width: int, title: str, subtitle: str
) -> alt.FacetChart:
    """Return R@1 against the level of noise: one row per direction, one column per noisy part."""
    curves = pd.concat(
        [
            summarise(table, ["method", "what", "level"], f"{direction}_r1").assign(direction=name)
            for direction, name in DIRECTIONS.items()
        ],
        ignore_index=True,
    )
    curves["panel"] = curves["what"].map(_PANELS)
    layers = _lines(curves, "panel", axis, alt.Y("mean:Q"))
    return (
        layers.properties(width=panel_width, height=150)
        .facet(
            row=alt.Row("direction:N").title(None).sort(list(DIRECTIONS.values())),
            column=alt.Column("panel:N").title(None).sort(list(_PANELS.values())),
        )
        .properties(title=alt.Title(title, subtitle=subtitle))
    )


def _lines(curves: pd.DataFrame, panel: str, axis: str, y: alt.Y) -> alt.LayerChart:
    """Return one line per method with its interval; a click on the legend singles one out."""
    picked = alt.selection_point("picked", fields=["method"], bind="legend")
    order = list(dict.fromkeys(curves["method"]))
    colour = alt.Color("method:N").sort(order).title("method (click)")
    colour = colour.legend(alt.Legend(columns=3, symbolOpacity=1))
    ticks = sorted(float(level) for level in curves["level"].unique())
    base = alt.Chart(curves).encode(alt.X("level:Q").title(axis).axis(values=ticks), colour)
    tooltip = ["method:N", f"{panel}:N", "level:Q", *charts.interval_tooltip()]
    band, line = charts.mean_line(
        base, alt.Y("low:Q"), y.title(None), tooltip, opacity=0.15, picked=picked, point=True
    )
    layers: alt.LayerChart = band + line  # type: ignore[assignment]
    return layers
