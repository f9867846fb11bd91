"""The figures and tables of the chapter on embeddings, beside its maps."""

import math

import altair as alt
import pandas as pd

from lib.chapters.embeddings.claim import PRIMARY_MEASURES
from lib.chapters.embeddings.measures import MEASURES
from lib.chapters.shared import charts
from lib.chapters.shared.charts import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION
from lib.chapters.shared.figures import rounded_p, summarise


def cluster_differences(table: pd.DataFrame, title: str) -> alt.FacetChart:
    """Draw paired differences in the claim's two measures, each with its own scale and margin.

    Args:
        table: Of :func:`lib.chapters.embeddings.claim.compare_clusters`.
        title: What is compared with what.
    """
    layers = charts.difference_layers(table, table["margin"], "method", "difference", decimals=4)
    panels = charts.difference_panels(layers, charts.difference_title(title, "the margin"))
    chart: alt.FacetChart = panels.resolve_scale(x="independent")
    return chart


def temperature_chart(curve: pd.DataFrame, points: pd.DataFrame, title: str) -> alt.HConcatChart:
    """Draw the claim's measures against the temperature: the fixed loss's line, methods' dots.

    Args:
        curve: One row per run of the fixed loss: ``temperature`` and the measures.
        points: One row per run of the methods, on the same seeds: ``method``, ``temperature`` (mean
            over steps) and the measures.
        title: Of the figure.
    """
    methods = list(dict.fromkeys(points["method"]))
    colours = [INK, PURPLE, BLUE, ORANGE, GREEN, VERMILLION, GREY][: len(methods)]
    panels = []
    for measure, heading in PRIMARY_MEASURES.items():
        line = summarise(curve, ["temperature"], measure)
        dots = summarise(points, ["method"], measure).merge(
            points.groupby("method", as_index=False)["temperature"].mean()
        )
        x = alt.X("temperature:Q").scale(type="log", nice=False, padding=12)
        x = x.title("temperature τ (log scale)").axis(values=sorted(line["temperature"]))
        y = alt.Y("mean:Q").scale(zero=False).title(heading)
        tooltip = [
            alt.Tooltip("temperature:Q", format=".3f"),
            alt.Tooltip("mean:Q", format=".4f", title=measure),
        ]
        band, path = charts.mean_line(
            alt.Chart(line).encode(x),
            alt.Y("low:Q").title(heading),
            y,
            tooltip,
            opacity=0.15,
            color=GREY,
            point=alt.OverlayMarkDef(color=GREY),
        )
        dot = (
            alt.Chart(dots)
            .mark_point(size=90, opacity=0.9)
            .encode(
                x,
                y,
                alt.Color("method:N").scale(domain=methods, range=colours).title(None),
                alt.Shape("method:N").scale(domain=methods).title(None),
                tooltip=["method:N", *tooltip],
            )
        )
        panels.append(alt.layer(band, path, dot).properties(width=250, height=230))
    chart: alt.HConcatChart = alt.hconcat(*panels)
    return chart.properties(
        title=alt.Title(
            title,
            subtitle="line: the fixed loss at each τ, with its 95 % interval; dots: methods at "
            "their mean τ, same seeds",
        )
    )


def cluster_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`lib.chapters.embeddings.claim.compare_clusters`'s table as a page shows it."""
    return pd.DataFrame(
        {
            "method": table["method"],
            "measure": table["metric"],
            "difference": [
                plus_minus(row.estimate, row.high - row.estimate, sign=True)
                for row in table.itertuples()
            ],
            "margin": [f"±{margin:g}" for margin in table["margin"]],
            "p, adjusted": table["p_adjusted"].map(rounded_p),
            "verdict": table["verdict"],
        }
    )


def equal_temperature_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of :func:`lib.chapters.embeddings.claim.at_equal_temperature` for a page."""
    return pd.DataFrame(
        {
            "method": table["method"],
            "mean τ": table["temperature"].map("{:.3f}".format),
            "measure": table["measure"].map(MEASURES),
            "minus fixed as tuned": [
                plus_minus(row.tuned, row.tuned_half, sign=True) for row in table.itertuples()
            ],
            "minus fixed at that τ": [
                plus_minus(row.equal, row.equal_half, sign=True) for row in table.itertuples()
            ],
        }
    )


def measure_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Return each measure as ``mean ± half-width of the 95 % interval``, one column per method.

    ``runs`` is of :func:`lib.chapters.embeddings.measures.measure_table`. Its columns
    ``temperature`` and ``rsum``, if there are any, are shown too.
    """
    headings = {
        **MEASURES,
        "temperature": "temperature τ, mean over steps",
        "rsum": "rSum, retrieval itself",
    }
    rows = []
    for measure, heading in headings.items():
        if measure in runs:
            summary = summarise(runs, ["method"], measure)
            cells = {
                row.method: plus_minus(row.average, row.high - row.average)
                for row in summary.rename(columns={"mean": "average"}).itertuples()
            }
            rows.append({"measure": heading, **cells})
    return pd.DataFrame(rows)


def change_rows(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the paired differences of :func:`lib.chapters.embeddings.claim.compare_measures`, one
    row per measure and one column per method; ``*`` marks an adjusted p below 0.05."""
    cells = compared.assign(
        cell=[
            plus_minus(row.estimate, row.high - row.estimate, sign=True)
            + (" *" if row.p_adjusted < 0.05 else "")
            for row in compared.itertuples()
        ]
    )
    grid = cells.pivot(index="metric", columns="method", values="cell")
    grid = grid.loc[list(MEASURES), compared["method"].drop_duplicates()]
    return grid.rename(index=MEASURES).rename_axis(index="measure", columns=None).reset_index()


def plus_minus(value: float, half: float, *, sign: bool = False) -> str:
    """Write a value with the half-width of its interval, to two digits of the latter.

    At least 2 decimals and at most 6 are written, 3 if the interval has no width.

    >>> plus_minus(0.81234, 0.0123), plus_minus(-0.0000041, 0.0000125, sign=True)
    ('0.812 ± 0.012', '-0.000004 ± 0.000013')
    """
    digits = 3 if half <= 0 else min(6, max(2, 1 - math.floor(math.log10(half))))
    number = round(value, digits) + 0.0
    return f"{number:{'+' if sign else ''}.{digits}f} ± {half:.{digits}f}"
