"""Equations as MathML, which browsers draw without a script or a font from a network."""

import html
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.metadata import distribution
from pathlib import Path

from docutils import nodes  # type: ignore[import-untyped]
from latex2mathml.converter import convert_to_element
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

_PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "msubsup": 3, "mover": 2, "munder": 2}


class EquationError(SphinxError):
    """An equation can't be typeset."""

    category = "Equation error"


def mathml(latex: str, display: bool = False) -> str:
    r"""Return ``latex`` as a MathML element.

    Raises:
        EquationError: The equation is malformed, or one of its commands is unknown.

    >>> mathml("w < 2")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>w</mi><mo>&lt;</mo><mn>2</mn></mrow></math>'
    """  # noqa: E501
    try:
        element = convert_to_element(latex, display="block" if display else "inline")
    except Exception as error:
        # The converter raises bare exceptions of many kinds, KeyError and IndexError among them.
        raise EquationError(f"cannot typeset {latex!r}: {type(error).__name__} {error}") from error
    for part in element.iter():
        # The converter escapes its own signs, but not the author's text.
        part.text = html.unescape(part.text or "")
        if "\\" in part.text:
            raise EquationError(f"cannot typeset {latex!r}: the command {part.text} is not known")
        if len(part) != _PARTS.get(part.tag, len(part)):
            raise EquationError(f"cannot typeset {latex!r}: an {part.tag} lacks a part")
    return ElementTree.tostring(element, encoding="unicode")


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_typeset(node, display=False))
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})</span>')
    translator.body.append(_typeset(node, display=True) + "</div>\n")
    raise nodes.SkipNode


def _typeset(node: nodes.Element, display: bool) -> str:
    try:
        return mathml(node.astext(), display)
    except EquationError as error:
        raise EquationError(f"{node.source}:{node.line}: {error}") from error


def _copy_font(app: Sphinx) -> None:
    """Copy ziamath's mathematical font, which ``custom.css`` names; many machines have none."""
    target = Path(app.outdir) / "_static" / "STIXTwoMath-Regular.ttf"
    if app.builder.format == "html" and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        font = distribution("ziamath").locate_file(f"ziamath/fonts/{target.name}")
        shutil.copyfile(Path(str(font)), target)


def setup(app: Sphinx) -> None:
    """Register the renderer under the name ``mathml``, for ``html_math_renderer``."""
    app.connect("builder-inited", _copy_font)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_visit_inline, None), block_renderers=(_visit_block, None)
    )
