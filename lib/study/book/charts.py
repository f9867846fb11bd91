"""Charts in the book, drawn from their specification by a script beside the page.

A notebook's chart output has a Vega-Lite specification and a static picture. The page shows the
picture at once, and ``charts.js`` replaces it by the live chart. If scripts do not run or drawing
fails, the picture stays.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import vl_convert
from docutils import nodes  # type: ignore[import-untyped]
from myst_nb.core.render import (  # type: ignore[import-untyped]
    MimeData,
    NbElementRenderer,
    load_mime_renders,
)
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from lib.chapters.shared import charts
from lib.utils.files import write_atomic

_FOR_THE_BOOK = "application/vnd.study."
"""How the kinds of output begin that :mod:`lib.chapters.shared` publishes."""
_HTML_BUILDERS = ("html", "dirhtml", "singlehtml")
_log = logging.getLogger(__name__)


class Chart(nodes.General, nodes.Element):  # type: ignore[misc]
    """A chart in a page: its ``spec`` as JSON text, its ``label``, its static picture."""


class ChartOutput:
    """The myst-nb plugin for the study's own kinds of output."""

    mime_priority_overrides: ClassVar = [
        (builder, charts.MIME_TYPE, 1) for builder in _HTML_BUILDERS
    ]

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """Return the nodes of a chart, none of what the book reads itself, or None for any other
        output."""
        if data.mime_type == charts.MIME_TYPE:
            spec: Any = data.content
            return [Chart(spec=json.dumps(spec), label=charts.description(spec))]
        if data.mime_type.startswith(_FOR_THE_BOOK):
            # A file beside the page has it; the page shows the sentence of the same output.
            return []
        return None


class PlacePicture(SphinxPostTransform):
    """Put the static picture of a chart into the chart, before myst-nb drops one of the two."""

    default_priority = 3  # Before myst-nb chooses, at 4.
    formats = ("html",)

    def run(self, **_options: Any) -> None:
        """Visit each chart of the page."""
        for chart in list(self.document.findall(Chart)):
            bundle = chart.parent.parent
            pictures = [
                image
                for container in bundle.children
                if container.get("mime_type") == "image/svg+xml"
                for image in container.findall(nodes.image)
            ]
            if not pictures:
                _log.warning(
                    "the chart %r has no static picture: call charts.enable() of "
                    "lib.chapters.shared before it is displayed, and execute the notebook again",
                    chart["label"],
                    location=bundle,
                )
            for picture in pictures[:1]:
                picture.parent.remove(picture)
                picture["alt"] = chart["label"]
                chart.append(picture)


def _visit_chart(translator: HTML5Translator, node: Chart) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="chart"))


def _depart_chart(translator: HTML5Translator, node: Chart) -> None:
    # Only "<" can end a script element early.
    spec = node["spec"].replace("<", "\\u003c")
    translator.body.append(f'<script type="application/json">{spec}</script></div>\n')


def _add_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is not None and any(doctree.findall(Chart)):
        app.add_js_file(_bundle_name(), loading_method="defer")
        app.add_js_file("charts.js", loading_method="defer")


def _write_bundle(app: Sphinx) -> None:
    """Write Vega, Vega-Lite and vega-embed to one file, unless an earlier build has done so."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / _bundle_name()
    if not target.exists():
        bundle = vl_convert.javascript_bundle(
            "window.vegaEmbed = vegaEmbed;", vl_version=charts.VEGALITE_VERSION
        )
        # In a function, since the bundle's names would clash with those of other scripts.
        write_atomic(target, f"(() => {{{bundle}\n}})();\n")


def _bundle_name() -> str:
    return f"vega-lite-{charts.VEGALITE_VERSION}-{version('vl-convert-python')}.js"


def setup(app: Sphinx) -> None:
    """Add charts to Sphinx, and :class:`ChartOutput` to myst-nb."""
    # Myst-nb finds plugins by entry points, which an older installation of this package lacks. This
    # is its list of the plugins found.
    plugins = load_mime_renders()
    if ChartOutput not in plugins:
        plugins.append(ChartOutput)
    app.add_node(Chart, html=(_visit_chart, _depart_chart))
    app.add_post_transform(PlacePicture)
    app.connect("builder-inited", _write_bundle)
    app.connect("html-page-context", _add_scripts)
