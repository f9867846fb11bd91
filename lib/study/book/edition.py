"""An edition of the book, from its sources to its first page."""

import html as html_text
import io
import json
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lib.chapters.shared.findings import Edition
from lib.study.address import AddressError, read_address
from lib.study.book.errors import BookError

_ESCAPE_CODES = re.compile(r"\x1b\[[0-9;]*m")


def build(edition: Edition, root: Path) -> Path:
    """Build an edition from executed notebooks; return the absolute path of its first page.

    The published edition renders ``book/`` as it is. The quick edition renders the same sources
    with the notebooks of ``_build/quick/results`` instead of the published ones, under a banner.
    Sources that have not changed since the last build are not read again.

    Args:
        edition: ``"published"`` or ``"quick"``.
        root: The folder of ``_config.yml``, ``_toc.yml`` and ``book/``.

    Raises:
        BookError: A source is wrong, Jupyter Book gives a warning, or a built page has a broken
            link or needs a network. The text names every fault.
    """
    # Sphinx and its extensions take seconds to import.
    from lib.study.book.pages import check_pages
    from lib.study.book.sources import check_sources

    root = root.resolve()
    folder = root / "_build" / edition
    source = root if edition == "published" else _stage(root, folder)
    names = check_sources(source, root / "notebooks")
    html = folder / "html"
    # After a failed build, start from nothing: Sphinx does not repeat its warnings of a page.
    unfinished = folder / ".unfinished"
    if unfinished.exists():
        for stale in (html, folder / ".doctrees"):
            shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    _run_sphinx(source, html, _address(root))
    # Pages of an earlier build may no longer be in the book.
    for page in set((html / "book").rglob("*.html")) - {html / f"{name}.html" for name in names}:
        page.unlink()
    if problems := check_pages(html):
        raise BookError("\n".join(problems))
    unfinished.unlink()
    return html / f"{names[0]}.html"


def _stage(root: Path, folder: Path) -> Path:
    """Copy the sources of the quick edition to a folder; return it."""
    from lib.study.book.sources import read_config

    results = folder / "results"
    if not (results / "findings.json").is_file():
        raise BookError(f"no executed notebooks in {results}: run `study quick` first")
    stage = folder / "source"
    shutil.rmtree(stage, ignore_errors=True)
    ignored = shutil.ignore_patterns("results", ".*")
    shutil.copytree(root / "book", stage / "book", ignore=ignored)
    (stage / "book" / "results").mkdir()
    for path in (*results.glob("*.ipynb"), *results.glob("*.json")):
        shutil.copy2(path, stage / "book" / "results" / path.name)
    shutil.copy2(root / "_toc.yml", stage / "_toc.yml")
    config = read_config(root)
    config.setdefault("html", {})["announcement"] = _banner(results / "findings.json")
    (stage / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return stage


def _banner(findings: Path) -> str:
    """Return the sentence at the top of every page of the quick edition."""
    try:
        claims: list[dict[str, Any]] = json.loads(findings.read_text(encoding="utf-8"))["claims"]
        corpora = sorted({str(claim["corpus"]) for claim in claims if claim["corpus"]})
        seeds = sorted({int(e["seeds"]) for claim in claims for e in claim["estimates"]})
    except (ValueError, KeyError, TypeError) as error:
        raise BookError(f"{findings} is malformed: {type(error).__name__} {error}") from error
    made_of = [f"{' and '.join(corpora).capitalize()} corpus"] if corpora else []
    made_of += [f"{'–'.join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:])))} seeds"] * bool(seeds)
    made_of += ["minutes on a laptop"]
    return html_text.escape(f"Quick edition: {', '.join(made_of)} — not the published result.")


def _address(root: Path) -> dict[str, str]:
    """Return the settings of the links to notebooks; empty if the project has no address."""
    try:
        address = read_address(root)
    except AddressError as error:
        raise BookError(str(error)) from error
    if address is None:
        return {}
    return {"study_repository": address.repository, "study_tag": address.tag}


def _run_sphinx(source: Path, html: Path, address: dict[str, str]) -> None:
    from jupyter_book.sphinx import build_sphinx  # type: ignore[import-untyped]

    warnings = io.StringIO()
    with redirect_stderr(warnings), redirect_stdout(io.StringIO()):
        result = build_sphinx(
            source,
            html,
            noconfig=True,
            path_config=source / "_config.yml",
            confoverrides={
                "external_toc_path": (source / "_toc.yml").as_posix(),
                "latex_individualpages": False,
                **address,
            },
            warningiserror=True,
            keep_going=True,
            quiet=True,
        )
    if isinstance(result, KeyboardInterrupt):
        raise result
    if result != 0:
        explanation = _ESCAPE_CODES.sub("", warnings.getvalue()).strip()
        raise BookError(f"Jupyter Book could not build {source}:\n{explanation or result}")
