"""The reference: what autodoc makes of docstrings, joined to the rest of the book.

A docstring names its papers as prose does, "Wang and Isola (2020)", so that it reads well anywhere.
In the book such a name becomes a citation, and one that the bibliography lacks stops the build.
"""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pybtex.database import parse_file  # type: ignore[import-untyped]
from pybtex.richtext import Text  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

_YEAR = r"\((\d{4})\)"
_UNKNOWN = re.compile(rf"[A-Z]\w+(?:\s+et\s+al\.|\s+and\s+[A-Z]\w+)?\s+{_YEAR}")
_log = logging.getLogger(__name__)


def citation_labels(bibliography: Path) -> dict[str, str]:
    """Return how prose names each entry, "Wang and Isola (2020)", and the entry's key.

    Args:
        bibliography: A BibTeX file.

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
    """Replace papers that ``text`` names by citations; return those that are not known as well.

    Args:
        text: A docstring; a name may go over the end of a line.
        labels: Of :func:`citation_labels`.

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
    """Return the lines of the text under a constant that a package exports.

    autodoc looks for it in the package itself, not where the constant is defined.

    Args:
        package: The module that exports it, such as ``lib.losses``.
        name: The constant, such as ``LOSSES``.
    """
    for module in (package, *_sources(package, name)):
        found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
        if found is not None:
            return list(found)
    return []


def _sources(package: str, name: str) -> Iterator[str]:
    """Yield the modules from which a package imports a name."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            if any(alias.name == name for alias in node.names):
                yield node.module


def _describe(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    if what == "data":
        lines[:] = described(*name.rsplit(".", 1))


def _link_papers(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    labels: dict[str, str] = {}
    for path in app.config.bibtex_bibfiles:
        labels |= citation_labels(Path(app.srcdir) / path)
    text, unknown = cite("\n".join(lines), labels)
    for paper in unknown:
        _log.warning("the docstring of %s names %s, which is not in the bibliography", name, paper)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Add autodoc, and what it lacks, to ``app``."""
    for extension in ("autodoc", "autosummary", "napoleon"):
        app.setup_extension(f"sphinx.ext.{extension}")
    # Napoleon's place is at 500: constants get their text before it, citations need its result.
    app.connect("autodoc-process-docstring", _describe, priority=400)
    app.connect("autodoc-process-docstring", _link_papers, priority=600)
