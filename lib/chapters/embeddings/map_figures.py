"""t-SNE maps in a page: two to compare and play with, and how far the settings make them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from lib.chapters.embeddings.maps import EXTENT, start_name
from lib.chapters.shared.charts import GREY, INK, PALETTE

TOPIC_COLOURS = (*PALETTE, INK, GREY, "#a08c00")
"""Colours of up to nine topics: Okabe and Ito's, their yellow darkened to be seen on white."""
PANEL = 300
"""Side of a map in pixels."""


def map_chart(maps: pd.DataFrame, baseline: str = "fixed") -> alt.HConcatChart:
    """Draw two t-SNE maps side by side, the baseline's and another method's, at chosen settings.

    Colour shows the topic and shape the modality; a click on the legend filters by them. The point
    under the pointer and its partner are enlarged; a click on a point opens its image's page.

    Args:
        maps: Of :func:`lib.chapters.embeddings.maps.map_table`.
        baseline: The method on the left.
    """
    settings = {name: list(maps[name].unique()) for name in ("seed", "perplexity", "start")}
    others = [method for method in maps["method"].unique() if method != baseline]
    items = _items(maps, {"method": [baseline, *others], **settings})
    base = alt.Chart({"name": "items", "values": items})
    shared, stride = _place_expression(settings)
    chosen = alt.selection_point("topics", fields=["topic"], bind="legend")
    kinds = alt.selection_point("modalities", fields=["modality"], bind="legend")
    pointed = [
        alt.selection_point(
            f"pair_{side}", on="pointerover", clear="pointerout", fields=["image"], empty=False
        )
        for side in ("left", "right")
    ]
    channels = {
        **_point_channels(sorted(maps["topic"].unique())),
        "opacity": alt.when(chosen & kinds).then(alt.value(0.8)).otherwise(alt.value(0.05)),
        "size": alt.when(pointed[0] | pointed[1]).then(alt.value(220)).otherwise(alt.value(28)),
    }
    if any("link" in item for item in items):
        channels["href"] = alt.Href("link:N")

    def panel(method: str, title: Any) -> alt.Chart:
        place = f"{method} * {stride} + {shared}"
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


def _items(maps: pd.DataFrame, settings: Mapping[str, Sequence[Any]]) -> list[dict[str, str]]:
    """Return one row per item, with its coordinates in the maps of all settings, in their order.

    Long form would repeat the item's name in each map. The coordinates are text, since a notebook's
    file puts each number of a list on a line of its own.
    """
    places = {setting: place for place, setting in enumerate(itertools.product(*settings.values()))}
    keys = zip(*(maps[name] for name in settings), strict=True)
    ordered = maps.assign(place=[places[key] for key in keys]).sort_values("place", kind="stable")
    return [
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


def _point_channels(topics: Sequence[str]) -> dict[str, Any]:
    """Return the channels of a point that no selection changes."""
    scale = alt.Scale(domain=[-EXTENT, EXTENT], nice=False, padding=6)
    colours = [TOPIC_COLOURS[row % len(TOPIC_COLOURS)] for row in range(len(topics))]
    legend = alt.Legend(columns=5, symbolOpacity=1, padding=8)
    return {
        "x": alt.X("px:Q", axis=None, scale=scale),
        "y": alt.Y("py:Q", axis=None, scale=scale),
        "color": alt.Color("topic:N", legend=legend)
        .title("topic (click)")
        .scale(domain=topics, range=colours),
        "shape": alt.Shape("modality:N", legend=alt.Legend(symbolOpacity=1, padding=8))
        .title("modality (click)")
        .scale(domain=["image", "caption"], range=["circle", "triangle-up"]),
        "tooltip": ["image:N", "topic:N", "modality:N"],
    }


def _place_expression(settings: Mapping[str, Sequence[Any]]) -> tuple[str, int]:
    """Return the Vega expression of where a map's coordinates stand among those of its method, and
    how many maps a method has."""
    place, stride = [], 1
    for name, values in reversed(list(settings.items())):
        if len(values) > 1:
            place.append(f"{name} * {stride}")
        stride *= len(values)
    return " + ".join(place) or "0", stride


def _menu(name: str, heading: str, labels: Sequence[str], first: int = 0) -> alt.Parameter:
    options = list(range(first, first + len(labels)))
    menu = alt.binding_select(options=options, labels=list(labels), name=heading)
    return alt.param(name, bind=menu, value=first)


def map_silhouette_chart(silhouettes: pd.DataFrame) -> alt.Chart:
    """Draw the silhouettes of :func:`lib.chapters.embeddings.maps.map_silhouettes`: one dot per map
    and one row per method and seed."""
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
