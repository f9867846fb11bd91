"""The reference pages, which autodoc makes from docstrings.

A docstring names a paper as prose does: "Wang and Isola (2020)". In the book, the name becomes a
citation. A paper that is not in the bibliography stops the build.
"""

import ast
import re
from collections.abc import Iterator
from enum import Enum
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, get_type_hints

from docutils import nodes  # type: ignore[import-untyped]
from pybtex.database import parse_file  # type: ignore[import-untyped]
from pybtex.richtext import Text  # type: ignore[import-untyped]
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation
from torch import nn

from lib.metrics import Values

_YEAR = r"\((\d{4})\)"
_UNKNOWN = re.compile(rf"[A-Z]\w+(?:\s+et\s+al\.|\s+and\s+[A-Z]\w+)?\s+{_YEAR}")
_OWN_NAME = re.compile(r"(:(?:class|data|exc|func|meth):`)(lib\.)")
_SHAPE = re.compile(r"\(\.\.\.[^()\n]*\)")
_log = logging.getLogger(__name__)


def citation_labels(bibliography: Path) -> dict[str, str]:
    """Return the key of each entry of a BibTeX file, by the entry's name in prose.

    Raises:
        ValueError: Two entries have the same name in prose.
    """
    labels: dict[str, str] = {}
    for key, entry in parse_file(bibliography).entries.items():
        names = [
            str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names])))
            for person in entry.persons["author"]
        ]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        label = f"{who} ({entry.fields['year']})"
        if label in labels:
            raise ValueError(f"{bibliography}: {labels[label]} and {key} are both {label}")
        labels[label] = key
    return labels


def cite(text: str, labels: dict[str, str]) -> tuple[str, list[str]]:
    """Replace the papers named in ``text`` by citations; also return the unknown ones.

    Args:
        text: A docstring; a name may continue on the next line.
        labels: From :func:`citation_labels`.

    >>> cite("As in Wang and Isola (2020).", {"Wang and Isola (2020)": "wang2020"})
    ('As in :cite:t:`wang2020`.', [])
    >>> cite("As in Wang (1999).", {})[1]
    ['Wang (1999)']
    """
    for label, key in labels.items():
        anywhere = re.escape(label).replace(r"\ ", r"\s+")
        text = re.sub(rf"(?<!\w){anywhere}", f":cite:t:`{key}`", text)
    return text, [match[0] for match in _UNKNOWN.finditer(text)]


def described(package: str, name: str) -> list[str]:
    """Return the lines of the text under ``name``, a constant that ``package`` exports.

    autodoc looks for the text only in the package, not in the module that defines the constant.
    """
    for module in (package, *_sources(package, name)):
        lines = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
        if lines is not None:
            return list(lines)
    return []


def _sources(package: str, name: str) -> Iterator[str]:
    """Yield the modules from which a package imports a name."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            yield resolve_name("." * node.level + (node.module or ""), package)


def merge_returns(doctree: nodes.document) -> None:
    """Move the return type to the beginning of "Returns", where arguments have their types."""
    for fields in doctree.findall(nodes.field_list):
        by_name = {field[0].astext(): field for field in fields.findall(nodes.field)}
        kind, returns = by_name.get("Return type"), by_name.get("Returns")
        if kind is None or returns is None:
            continue
        kind.parent.remove(kind)
        text = next(iter(returns[1].findall(nodes.paragraph)))
        types = [child for line in kind[1].findall(nodes.paragraph) for child in line.children]
        text[:0] = [*types, nodes.Text(" – ")]


def _describe(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    if what == "data":
        lines[:] = described(*name.rsplit(".", 1))
    # Napoleon reads text before a colon as a type; autodoc already knows the type.
    if what in ("attribute", "data", "property") and lines:
        lines[0] = f": {lines[0]}"
    for row, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            lines[row + 1] = re.sub(r"^(\s+)", r"\1: ", lines[row + 1])


def _finish(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    labels: dict[str, str] = {}
    for path in app.config.bibtex_bibfiles:
        labels |= citation_labels(Path(app.srcdir) / path)
    text, unknown = cite("\n".join(lines), labels)
    for paper in unknown:
        _log.warning("the docstring of %s names %s, which is not in the bibliography", name, paper)
    text = _OWN_NAME.sub(r"\1~\2", text)
    # Keep a shape on one line.
    text = _SHAPE.sub(lambda shape: shape[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines[:] = text.split("\n")


def _sign(
    app: Sphinx, what: str, name: str, value: Any, *_signature: Any
) -> tuple[str | None, str | None] | None:
    """Correct autodoc's types of arguments; omit the signature of a class that no user makes."""
    known = app.env.temp_data.setdefault("annotations", {}).setdefault(name, {})
    # Call a union what the package calls it.
    union = stringify_annotation(Values, "smart")
    for argument, hint in known.items():
        known[argument] = hint.replace(union, "~lib.metrics.Values")
    if what not in ("class", "exception"):
        return None
    not_made = issubclass(value, Exception | Enum) or getattr(value, "_is_protocol", False)
    if not_made or value.__init__ is nn.Module.__init__:  # Module's is (*args, **kwargs).
        return "", None
    # autodoc gives an argument the type of the buffer of the same name.
    if "__init__" in vars(value):
        for argument, hint in get_type_hints(value.__init__).items():
            if argument != "return":
                known[argument] = stringify_annotation(hint, "smart")
    return None


def _find_union(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element
) -> nodes.Element | None:
    """Resolve a reference to a type that is a constant, not a class."""
    target = node["reftarget"]
    entry = env.get_domain("py").objects.get(target)  # type: ignore[attr-defined]
    if node.get("refdomain") != "py" or entry is None or entry.objtype != "data":
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [shown], target)


def setup(app: Sphinx) -> None:
    """Add autodoc and the corrections of its results to ``app``."""
    for extension in ("autodoc", "autosummary", "napoleon"):
        app.setup_extension(f"sphinx.ext.{extension}")
    # Napoleon runs at 500, between the two.
    app.connect("autodoc-process-docstring", _describe, priority=400)
    app.connect("autodoc-process-docstring", _finish, priority=600)
    app.connect("autodoc-process-signature", _sign, priority=700)
    app.connect("doctree-read", lambda _app, doctree: merge_returns(doctree))
    app.connect("missing-reference", _find_union)
