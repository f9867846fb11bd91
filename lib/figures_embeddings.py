"""The figures and tables of the chapter on embeddings."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from lib.charts import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, PURPLE, VERMILLION
from lib.clusters import MEASURES, PRIMARY, start_name
from lib.figures import summarise, verdict_colour

TOPIC_COLOURS = (*PALETTE, INK, GREY, "#a08c00")
"""Colours of up to nine topics: Okabe and Ito's, their yellow darkened to be seen on white."""
PANEL = 300
"""Side of a map in pixels."""


def map_chart(maps: pd.DataFrame, baseline: str = "fixed") -> alt.HConcatChart:
    """Two t-SNE maps side by side, the baseline's and another method's, at chosen settings.

    Topics and modalities are told by colour and shape and filtered by a click on the legend; a
    point under the pointer is enlarged with its partner; a click on it opens its image's page.

    Args:
        maps: Of :func:`lib.clusters.map_table`.
        baseline: The method on the left.
    """
    # An item a row, with its coordinates in every map: long form would repeat its name in each. They
    # are text, since a notebook's file puts each number of a list on a line of its own.
    settings = {name: list(maps[name].unique()) for name in ("seed", "perplexity", "start")}
    others = [method for method in maps["method"].unique() if method != baseline]
    methods = [baseline, *others]
    places = {
        setting: row
        for row, setting in enumerate(
            (method, seed, perplexity, start)
            for method in methods
            for seed in settings["seed"]
            for perplexity in settings["perplexity"]
            for start in settings["start"]
        )
    }
    keys = zip(*(maps[name] for name in ("method", *settings)), strict=True)
    ordered = maps.assign(place=[places[key] for key in keys]).sort_values("place", kind="stable")
    items = [
        {
            "image": image,
            "topic": topic,
            "modality": modality,
            **({"link": points["link"].iloc[0]} if points["link"].notna().all() else {}),
            **{axis: " ".join(f"{value:g}" for value in points[axis]) for axis in "xy"},
        }
        for (image, topic, modality), points in ordered.groupby(
            ["image", "topic", "modality"], sort=False
        )
    ]
    topics = sorted(maps["topic"].unique())
    base = alt.Chart({"name": "items", "values": items})
    shared = _place_expression(settings)
    chosen = alt.selection_point("topics", fields=["topic"], bind="legend")
    kinds = alt.selection_point("modalities", fields=["modality"], bind="legend")
    pointed = [
        alt.selection_point(
            f"pair_{side}", on="pointerover", clear="pointerout", fields=["image"], empty=False
        )
        for side in ("left", "right")
    ]
    # Turned towards one another, maps may reach beyond the square that each was scaled to.
    reach = float(maps[["x", "y"]].abs().max(axis=None))
    scale = alt.Scale(domain=[-reach, reach], nice=False, padding=6)
    colours = [TOPIC_COLOURS[row % len(TOPIC_COLOURS)] for row in range(len(topics))]
    legend = alt.Legend(columns=5, symbolOpacity=1, padding=8)
    channels: dict[str, Any] = {
        "x": alt.X("px:Q", axis=None, scale=scale),
        "y": alt.Y("py:Q", axis=None, scale=scale),
        "color": alt.Color("topic:N", legend=legend)
        .title("topic (click)")
        .scale(domain=topics, range=colours),
        "shape": alt.Shape("modality:N", legend=alt.Legend(symbolOpacity=1, padding=8))
        .title("modality (click)")
        .scale(domain=["image", "caption"], range=["circle", "triangle-up"]),
        "opacity": alt.when(chosen & kinds).then(alt.value(0.8)).otherwise(alt.value(0.05)),
        "size": alt.when(pointed[0] | pointed[1]).then(alt.value(220)).otherwise(alt.value(28)),
        "tooltip": ["image:N", "topic:N", "modality:N"],
    }
    if any("link" in item for item in items):
        channels["href"] = alt.Href("link:N")

    def panel(method: str, title: Any) -> alt.Chart:
        place = f"{method} * {len(places) // len(methods)} + {shared}"
        points = base.transform_calculate(
            **{f"p{axis}": f"toNumber(split(datum.{axis}, ' ')[{place}])" for axis in "xy"}
        ).mark_point(aria=False)
        chart: alt.Chart = points.encode(**channels).properties(
            width=PANEL, height=PANEL, title=alt.Title(title, fontSize=12)
        )
        return chart

    right = _menu("right", "on the right: ", others, first=1)
    menus = [
        right,
        *(
            _menu(name, f"{heading}: ", [write(value) for value in settings[name]])
            for name, heading, write in (
                ("seed", "training seed", str),
                ("perplexity", "perplexity", "{:g}".format),
                ("start", "start", start_name),
            )
            if len(settings[name]) > 1
        ),
    ]
    title = alt.expr(f"{json.dumps(others, ensure_ascii=False)}[right - 1]")
    panels = alt.hconcat(
        panel("0", baseline).add_params(chosen, kinds, pointed[0]),
        panel("right", title).add_params(pointed[1]),
    )
    chart: alt.HConcatChart = panels.add_params(*menus).properties(
        usermeta={"embedOptions": {"loader": {"target": "_blank"}}},
        title=alt.Title(
            "Do matched images and captions lie closer, and topics further apart?",
            subtitle=f"t-SNE of {maps['image'].nunique()} test images, each with a caption; "
            "axes and distances between clusters mean nothing",
        ),
    )
    return chart


def _place_expression(settings: Mapping[str, Sequence[Any]]) -> str:
    """Return the Vega expression of where a map's coordinates stand among those of its method."""
    place, stride = [], 1
    for name, values in reversed(list(settings.items())):
        if len(values) > 1:
            place.append(f"{name} * {stride}")
        stride *= len(values)
    return " + ".join(place) or "0"


def _menu(name: str, heading: str, labels: Sequence[str], first: int = 0) -> alt.Parameter:
    options = list(range(first, first + len(labels)))
    menu = alt.binding_select(options=options, labels=list(labels), name=heading)
    return alt.param(name, bind=menu, value=first)


def map_silhouette_chart(silhouettes: pd.DataFrame) -> alt.Chart:
    """How distinct the topics look in each map: a dot a map, a row a method and seed.

    Args:
        silhouettes: Of :func:`lib.clusters.map_silhouettes`.
    """
    table = silhouettes.assign(
        run=[f"{row.method}, seed {row.seed}" for row in silhouettes.itertuples()],
        start=silhouettes["start"].map(start_name),
        at=silhouettes["perplexity"].map("{:g}".format),
    )
    order = [f"{p:g}" for p in sorted(silhouettes["perplexity"].unique())]
    x = alt.X("silhouette:Q").scale(zero=False).title("silhouette of topics in the map")
    x = x.axis(tickCount=8)
    y = alt.Y("run:N").sort(list(dict.fromkeys(table["run"]))).title(None).axis(labelLimit=220)
    dots = alt.Chart(table).mark_point(size=60, opacity=0.8)
    chart: alt.Chart = dots.encode(
        x,
        y,
        alt.Color("at:N").sort(order).title("perplexity"),
        alt.Shape("start:N").title("start").legend(columns=2),
        tooltip=["run:N", "at:N", "start:N", alt.Tooltip("silhouette:Q", format=".3f")],
    ).properties(
        width="container",
        height=alt.Step(26),
        title=alt.Title(
            "How much of a map's looks is the map's own making?",
            subtitle="a dot is a map; dots of one row show one and the same model",
        ),
    )
    return chart


def cluster_differences(table: pd.DataFrame, title: str) -> alt.FacetChart:
    """Paired differences in the claim's two measures, each panel with its own scale and margin.

    Args:
        table: Of :func:`lib.clusters.compare_clusters`.
        title: What is compared with what.
    """
    base = alt.Chart(table.assign(outside=-table["margin"]))
    y = alt.Y("method:N").sort(list(dict.fromkeys(table["method"]))).title(None)
    y = y.axis(labelLimit=200)
    tooltip = [
        "method:N",
        "verdict:N",
        *(alt.Tooltip(f"{c}:Q", format="+.4f") for c in ("estimate", "low", "high")),
    ]
    band = base.mark_rect(opacity=0.12, color=GREY).encode(
        alt.X("mean(outside):Q").title("difference").axis(tickCount=5), alt.X2("mean(margin):Q")
    )
    zero = base.mark_rule(color=GREY).encode(x=alt.datum(0))
    bars = base.mark_rule(strokeWidth=2).encode(
        alt.X("low:Q"), alt.X2("high:Q"), y, verdict_colour()
    )
    points = base.mark_point(size=70, opacity=1).encode(
        alt.X("estimate:Q"), y, verdict_colour(), tooltip=tooltip
    )
    layers = alt.layer(band, zero, bars, points).properties(width=205, height=alt.Step(24))
    facets = layers.facet(column=alt.Column("metric:N").title(None).sort(list(PRIMARY.values())))
    chart: alt.FacetChart = facets.resolve_scale(x="independent").properties(
        title=alt.Title(title, subtitle="paired over seeds, 95 % intervals; grey band: the margin")
    )
    return chart


def temperature_chart(curve: pd.DataFrame, points: pd.DataFrame, title: str) -> alt.HConcatChart:
    """The claim's two measures against the temperature: a line for the fixed loss, a dot a method.

    Args:
        curve: A row a run of the fixed loss: ``temperature`` and the measures.
        points: A row a run of the methods, on the same seeds: ``method``, ``temperature`` (mean
            over steps) and the measures.
        title: Of the figure.
    """
    methods = list(dict.fromkeys(points["method"]))
    colours = [INK, PURPLE, BLUE, ORANGE, GREEN, VERMILLION, GREY][: len(methods)]
    panels = []
    for measure, heading in PRIMARY.items():
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
        base = alt.Chart(line).encode(x)
        band = base.mark_area(opacity=0.15, color=GREY).encode(
            alt.Y("low:Q").title(heading), alt.Y2("high:Q")
        )
        path = base.mark_line(color=GREY, point=alt.OverlayMarkDef(color=GREY)).encode(
            y, tooltip=tooltip
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
    """Return the comparisons of the claim's two measures as a page shows them.

    Args:
        table: Of :func:`lib.clusters.compare_clusters`.
    """
    return pd.DataFrame(
        {
            "method": table["method"],
            "measure": table["metric"],
            "difference": [
                plus_minus(row.estimate, row.high - row.estimate, sign=True)
                for row in table.itertuples()
            ],
            "margin": [f"±{margin:g}" for margin in table["margin"]],
            "p (Holm)": ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in table["p_adjusted"]],
            "verdict": table["verdict"],
        }
    )


def equal_temperature_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return what is left of each difference at equal temperature, as a page shows it.

    Args:
        table: Of :func:`lib.clusters.at_equal_temperature`.
    """
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
    """Return each measure as ``mean ± half-width of the 95 % interval``, a column a method.

    Args:
        runs: Of :func:`lib.clusters.measure_table`; columns ``temperature`` and ``rsum`` are shown too.
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
    """Return each measure's paired difference from the baseline, a column a method.

    Args:
        compared: Of :func:`lib.clusters.compare_measures`.
    """
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

    At least 2 decimals and at most 6 are written, 3 where the interval has no width.

    >>> plus_minus(0.81234, 0.0123), plus_minus(-0.0000041, 0.0000125, sign=True)
    ('0.812 ± 0.012', '-0.000004 ± 0.000013')
    """
    digits = 3 if half <= 0 else min(6, max(2, 1 - math.floor(math.log10(half))))
    number = round(value, digits) + 0.0
    return f"{number:{'+' if sign else ''}.{digits}f} ± {half:.{digits}f}"
