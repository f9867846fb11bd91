"""The study's Altair theme, and a chart output that is seen without network or scripts.

``enable()``, called once in a notebook's first cell, makes every chart that the notebook displays
carry its Vega-Lite specification, which the book draws, and a static picture of the same chart,
which stands in wherever the specification isn't drawn.
"""

from typing import Any

import altair as alt
import vl_convert

from lib.utils.text import printable

VEGALITE_VERSION: str = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
MIME_TYPE = f"application/vnd.vegalite.v{VEGALITE_VERSION.split('.')[0]}+json"
"""How a notebook output says that it is a Vega-Lite specification of Altair's major version."""

STATIC_WIDTH = 640
"""Width in pixels, in the static picture, of a chart that fills its container in a page."""

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)
GREY, INK = "#8a9199", "#2b3137"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
"""Okabe and Ito's colours (2008): told apart by readers with any common colour blindness."""

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
    """Make every chart displayed from here on wear the theme and carry its static picture."""
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

    At a control character, which no SVG may hold, the library that draws would abort the whole
    process, so that the texts are made :func:`lib.utils.text.printable` first.

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
    """Return what a chart says of itself in words: its description, else its title.

    >>> description({"title": {"text": ["Recall", "by seed"]}})
    'Recall by seed'
    """
    title = spec.get("title")
    if isinstance(title, dict):
        title = title.get("text")
    if isinstance(title, list):
        title = " ".join(map(str, title))
    return str(spec.get("description") or title or "Chart")
