"""The study's Altair theme, the parts that its charts share, and their output in a notebook.

After ``enable()``, a notebook displays every chart as its Vega-Lite specification, which the book
draws, and as a static picture, which needs neither network nor scripts.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from lib.utils.text import printable

VEGALITE_VERSION: str = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
MIME_TYPE = f"application/vnd.vegalite.v{VEGALITE_VERSION.split('.')[0]}+json"
"""How a notebook output says that it is a Vega-Lite specification of Altair's major version."""

STATIC_WIDTH = 640
"""Width in pixels, in the static picture, of a chart that fills its container in a page."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's colours (2008): distinct with any common colour blindness."""
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = PALETTE
GREY, INK = "#8a9199", "#2b3137"

_FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


def theme() -> alt.theme.ThemeConfig:
    """Return the look that all of the study's charts share.

    >>> theme()["config"]["range"]["category"][0]
    '#0072b2'
    """
    quiet = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal"}
    config: Any = {
        "background": "white",
        "font": _FONT,
        "view": {"continuousWidth": STATIC_WIDTH, "continuousHeight": 280, "stroke": None},
        "axis": {
            **quiet,
            "domainColor": GREY,
            "tickColor": GREY,
            "gridColor": "#e6e8eb",
            "labelFontSize": 12,
            "titleFontSize": 12,
        },
        "legend": {**quiet, "labelFontSize": 12, "titleFontSize": 12, "orient": "top"},
        "header": {**quiet, "labelFontSize": 12, "titleFontSize": 12},
        "title": {
            "anchor": "start",
            "color": INK,
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleColor": "#57606a",
            "subtitleFontSize": 12,
            "offset": 12,
        },
        "range": {"category": list(PALETTE)},
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 50},
        "mark": {"color": BLUE},
    }
    return {"config": config}


def enable() -> None:
    """Display charts in the theme and with a static picture from now on."""
    alt.theme.register("study", enable=True)(theme)
    alt.renderers.register("study", render)
    alt.renderers.enable("study")


def render(spec: dict[str, Any], **_options: Any) -> dict[str, Any]:
    """Return the notebook output of a Vega-Lite ``spec``: specification, static SVG, plain text.

    Its texts are first made :func:`lib.utils.text.printable`.

    >>> sorted(render(alt.Chart(alt.Data(values=[])).mark_bar().to_dict()))
    ['application/vnd.vegalite.v6+json', 'image/svg+xml', 'text/plain']
    """
    spec = _printable(spec)
    return {MIME_TYPE: spec, "image/svg+xml": static_svg(spec), "text/plain": description(spec)}


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def static_svg(spec: dict[str, Any]) -> str:
    """Return the picture of ``spec`` as SVG text, drawn without network.

    The texts are first made :func:`lib.utils.text.printable`, since vl-convert aborts the whole
    process at a control character.

    Raises:
        ValueError: The specification can't be drawn, or wants data from an address.
    """
    if spec.get("width") == "container":
        # There is no container to measure here, and Vega would fall back to a narrow strip.
        spec = {**spec, "width": STATIC_WIDTH}
    spec = _printable(spec)
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE_VERSION, allowed_base_urls=[])
    return svg


def description(spec: dict[str, Any]) -> str:
    """Return a chart's description, else its title.

    >>> description({"title": {"text": ["Recall", "by seed"]}})
    'Recall by seed'
    """
    title = spec.get("title")
    if isinstance(title, dict):
        title = title.get("text")
    if isinstance(title, list):
        title = " ".join(map(str, title))
    return str(spec.get("description") or title or "Chart")


INTERVALS = "thick lines: 95 % intervals; thin ones: 99.9 %, which give the verdict"

PANEL = (205, alt.Step(24))
"""Width and height of a panel of differences, one row per method: three fit a page."""


def page_wide(
    layers: Sequence[alt.Chart | alt.LayerChart], height: int | alt.Step, title: str, subtitle: str
) -> alt.LayerChart:
    """Return a chart as wide as its page, under a title that says how to read it."""
    layered: Any = reduce(add, layers)
    heading = alt.Title(title, subtitle=subtitle)
    chart: alt.LayerChart = layered.properties(width="container", height=height, title=heading)
    return chart


def interval_tooltip(digits: str = ".2f", centre: str = "mean") -> list[alt.Tooltip]:
    """Return the tooltip's fields for a value and its interval, in a number format."""
    return [alt.Tooltip(f"{column}:Q", format=digits) for column in (centre, "low", "high")]


def mean_line(
    base: alt.Chart,
    low: alt.Y,
    centre: alt.Y,
    tooltip: Sequence[Any],
    *,
    opacity: float = 0.2,
    picked: alt.Parameter | None = None,
    **mark: Any,
) -> tuple[alt.Chart, alt.Chart]:
    """Return two layers over ``base``: the band from ``low`` to ``high``, and the line in it.

    Outside the selection ``picked``, lines fade and bands vanish. ``mark`` holds options of the
    line; the band takes its ``color``.
    """
    color = mark.get("color", alt.Undefined)
    band = base.mark_area(color=color, opacity=alt.Undefined if picked else opacity)
    band = band.encode(low, alt.Y2("high:Q"))
    line = base.mark_line(**mark).encode(centre, tooltip=tooltip)
    if picked is not None:
        when = alt.when(picked)
        band = band.encode(opacity=when.then(alt.value(opacity)).otherwise(alt.value(0)))
        line = line.encode(opacity=when.then(alt.value(1)).otherwise(alt.value(0.1)))
        return band, line.add_params(picked)
    return band, line


def verdict_colour() -> alt.Color:
    """Return the encoding of a verdict as a colour, the same in every chart."""
    colours = {"improves": GREEN, "worsens": VERMILLION, "equivalent": BLUE, "undecided": GREY}
    encoding = alt.Color("verdict:N").title("verdict")
    return encoding.scale(domain=list(colours), range=list(colours.values()))


def difference_layers(
    table: pd.DataFrame,
    margin: float | pd.Series,
    y: str,
    x_title: str,
    *,
    named: Sequence[str] = (),
    decimals: int = 2,
    scale: alt.Scale | None = None,
    more: Sequence[alt.Tooltip] = (),
) -> list[alt.Chart]:
    """Return a panel of paired differences with their intervals and the band of no difference.

    Args:
        table: ``estimate``, ``low``, ``high``, ``wide_low``, ``wide_high``, ``verdict``, and what
            ``y`` and ``named`` name.
        margin: Half-width of the band inside which a difference counts as none, for all or by row.
        y: The column whose values are the rows of the panel, in the table's order.
        x_title: What is different, with its unit.
        named, more: Further columns in the tooltip, and its last fields.
        decimals: Of the tooltip's numbers.
        scale: Of the differences; default, as wide as they need.
    """
    base = alt.Chart(table.assign(inside=margin, outside=-margin))
    rows = alt.Y(f"{y}:N").sort(list(dict.fromkeys(table[y]))).title(None).axis(labelLimit=220)
    tooltip = [
        f"{y}:N",
        *(f"{name}:N" for name in named),
        "verdict:N",
        *interval_tooltip(f"+.{decimals}f", "estimate"),
        *more,
    ]
    x = alt.X("mean(outside):Q").title(x_title)
    band = base.mark_rect(opacity=0.12, color=GREY).encode(
        x if scale is None else x.scale(scale), alt.X2("mean(inside):Q")
    )
    zero = base.mark_rule(color=GREY).encode(x=alt.datum(0))
    bars = [
        base.mark_rule(strokeWidth=width).encode(
            alt.X(f"{low}:Q"), alt.X2(f"{high}:Q"), rows, verdict_colour()
        )
        for low, high, width in (("wide_low", "wide_high", 1), ("low", "high", 3))
    ]
    points = base.mark_point(size=60, opacity=1).encode(
        alt.X("estimate:Q"), rows, verdict_colour(), tooltip=tooltip
    )
    return [band, zero, *bars, points]


def difference_title(title: str, band: str, lead: str = "") -> alt.Title:
    """Return the title of paired differences; ``lead`` begins the subtitle, ``band`` ends it."""
    lines = [f"{lead}paired over seeds; grey band: {band}", INTERVALS]
    return alt.Title(title, subtitle=lines)


def difference_panels(
    layers: Sequence[alt.Chart],
    title: alt.Title,
    size: tuple[int, int | alt.Step] = PANEL,
    *,
    column: alt.Column | None = None,
    row: Any = alt.Undefined,
) -> alt.FacetChart:
    """Return panels of ``layers``: a column per metric, in the table's order, or per value of
    ``column``; a row per value of ``row``."""
    if column is None:
        table: Any = layers[0].data
        column = alt.Column("metric:N").title(None).sort(list(dict.fromkeys(table["metric"])))
    panel: Any = alt.layer(*layers).properties(width=size[0], height=size[1])
    panels: alt.FacetChart = panel.facet(row=row, column=column).properties(title=title)
    return panels
