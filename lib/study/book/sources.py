"""Checks of the book's sources, for faults that Jupyter Book reports unclearly or not at all."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from markdown_it import MarkdownIt
from sphinx_external_toc.parsing import MalformedError, parse_toc_data

from lib.study.book.errors import BookError
from lib.study.staleness import stale

PAGE_SUFFIXES = (".md", ".ipynb")
MAX_NOTEBOOK_BYTES = 5_000_000
"""A larger executed notebook makes every clone slow."""

_WIDGETS = "application/vnd.jupyter.widget-"
_REDRAWN_BAR = re.compile(r"HBox\(|\d+%\|[█▏▎▍▌▋▊▉ #]*\||\r[^\n]")


def read_config(root: Path) -> dict[str, Any]:
    """Read ``_config.yml``.

    Raises:
        BookError: The file is missing, malformed, or turns on the execution of notebooks.
    """
    config = _read_yaml(root / "_config.yml")
    execute = config.get("execute")
    mode = execute.get("execute_notebooks") if isinstance(execute, Mapping) else None
    if mode is False:
        raise BookError(
            f"{root / '_config.yml'}: execute_notebooks is an unquoted off, which YAML reads as "
            'false: write execute_notebooks: "off"'
        )
    if mode != "off":
        raise BookError(
            f"{root / '_config.yml'}: execute_notebooks is {mode!r}, but a build must not "
            'execute notebooks: write execute_notebooks: "off"'
        )
    return config


def page_names(root: Path) -> list[str]:
    """Return the pages in ``_toc.yml``, the first page first, without their suffixes.

    Raises:
        BookError: The file is missing or malformed, or has an entry without a file.
    """
    path = root / "_toc.yml"
    try:
        site = parse_toc_data(_read_yaml(path))
    except MalformedError as error:
        raise BookError(f"{path} is malformed: {error}") from error
    names = [re.sub(r"\.(md|ipynb)$", "", str(name)) for name in site]
    missing = [name for name in names if _page_file(root, name) is None]
    if missing:
        raise BookError(
            f"{path} lists pages that don't exist: {', '.join(missing)} "
            f"(looked for {' and '.join(PAGE_SUFFIXES)} in {root}). "
            "Pages of results come from `study quick` or `study full`"
        )
    first = re.sub(r"\.(md|ipynb)$", "", str(site.root.docname))
    return [first, *(name for name in names if name != first)]


def check_sources(root: Path, notebooks: Path | None = None) -> list[str]:
    """Check the book's sources in ``root``; return its pages, the first page first.

    Args:
        root: The folder of ``_toc.yml`` and ``book/``.
        notebooks: The folder of the executed notebooks' sources; by default ``root / "notebooks"``.

    Raises:
        BookError: Something is wrong; the text names every fault.
    """
    read_config(root)
    names = page_names(root)
    problems: list[str] = []
    for path in sorted((root / "book").rglob("*")):
        inner = path.relative_to(root)
        hidden = any(part.startswith((".", "_")) for part in inner.parts)
        listed = inner.with_suffix("").as_posix() in names
        if path.suffix in PAGE_SUFFIXES and not hidden and not listed:
            problems.append(f"{path} is not in _toc.yml: list it there, or move it away")
    for page in (_page_file(root, name) for name in names):
        assert page is not None  # page_names has checked it
        faults = list(_check_page(page))
        source = (notebooks or root / "notebooks") / page.name
        if page.suffix == ".ipynb" and source.is_file() and not faults:
            faults += stale(page, source)
        problems += faults
    if problems:
        raise BookError("\n".join(problems))
    return names


def _check_page(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        prose = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    else:
        try:
            cells = json.loads(text)["cells"]
            prose = "\n\n".join(
                "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
            )
            yield from _check_notebook(path, cells)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{path} is not a readable notebook: {type(error).__name__} {error}"
            return
    headings = [token.tag for token in MarkdownIt().parse(prose) if token.type == "heading_open"]
    if headings[:1] != ["h1"]:
        yield f"{path} has no title: begin it with a heading of the first level, `# Title`"


def _check_notebook(path: Path, cells: list[dict[str, Any]]) -> Iterator[str]:
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        yield (
            f"{path} is {path.stat().st_size:,} bytes, above {MAX_NOTEBOOK_BYTES:,}: "
            "aggregate or thin the data of its charts"
        )
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            continue
        where = f"{path}, cell {number}"
        if "".join(cell["source"]).strip() and cell.get("execution_count") is None:
            yield f"{where} was never executed: the book shows executed notebooks"
        for output in cell.get("outputs", []):
            yield from _check_output(where, output)


def _check_output(where: str, output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "error":
        yield f"{where} failed with {output.get('ename')}: {output.get('evalue')}"
    data = output.get("data", {})
    if any(mime_type.startswith(_WIDGETS) for mime_type in data):
        yield f"{where} shows a widget, which needs a kernel and a network: use lib.utils.progress"
    text = "".join(output.get("text", "")) + "".join(data.get("text/plain", ""))
    if _REDRAWN_BAR.search(text):
        yield f"{where} shows a progress bar: lib.utils.progress prints none into notebooks"
    for mime_type, content in data.items():
        if "vegalite" in mime_type and (addresses := sorted(set(_data_addresses(content)))):
            yield f"{where}: a chart loads its data from {', '.join(addresses)}; put them into it"


def _data_addresses(spec: object) -> Iterator[str]:
    """Yield each address from which a part of the chart ``spec`` loads its data."""
    if isinstance(spec, list):
        for item in spec:
            yield from _data_addresses(item)
    elif isinstance(spec, dict):
        for key, value in spec.items():
            if key == "data" and isinstance(value, dict) and "url" in value:
                yield str(value["url"])
            elif key not in ("datasets", "values"):
                yield from _data_addresses(value)


def _page_file(root: Path, name: str) -> Path | None:
    return next((p for s in PAGE_SUFFIXES if (p := root / f"{name}{s}").is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BookError(f"{path} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BookError(f"{path} is malformed: {error}") from error
    if not isinstance(content, dict):
        raise BookError(f"{path} must hold names with values, not {type(content).__name__}")
    return content
