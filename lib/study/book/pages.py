"""Checks of the built pages: every link has a target, and nothing is loaded from a network."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

_FETCHED = dict.fromkeys(("script", "img", "source", "iframe", "embed"), "src") | {"object": "data"}
_CSS_FETCH = re.compile(r"""(?:@import\s+|url\(\s*)["']?((?:https?:)?//[^"')\s]+)""")


def check_pages(html: Path) -> list[str]:
    """Return what is wrong with the links and files of the pages under ``html``.

    A link must lead to an existing file and anchor of the book; scripts, styles and pictures must
    be files of the book. Links to other sites are not checked.
    """
    # The theme leaves templates among the static files.
    paths = sorted(set(html.rglob("*.html")) - set((html / "_static").rglob("*.html")))
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}
    anchors = {page: _anchors(soup) for page, soup in pages.items()}
    problems: list[str] = []
    for page, soup in pages.items():
        name = page.relative_to(html).as_posix()
        for reference in _fetched(soup):
            if urlsplit(reference).netloc:
                problems.append(f"{name} needs {reference} from a network")
            else:
                problems += _follow(html, page, reference, anchors)
        for link in soup.find_all(["a", "form"]):
            reference = str(link.get("href") or link.get("action") or "")
            if not urlsplit(reference).scheme and not urlsplit(reference).netloc:
                problems += _follow(html, page, reference, anchors)
    for sheet in sorted(html.rglob("*.css")):
        for address in _CSS_FETCH.findall(sheet.read_text(encoding="utf-8", errors="replace")):
            problems.append(f"{sheet.relative_to(html).as_posix()} needs {address} from a network")
    return list(dict.fromkeys(problems))


def _anchors(soup: BeautifulSoup) -> set[str]:
    named = {str(tag["name"]) for tag in soup.find_all("a", attrs={"name": True})}
    return named | {str(tag["id"]) for tag in soup.find_all(id=True)}


def _fetched(soup: BeautifulSoup) -> Iterator[str]:
    """Yield each address that a browser fetches by itself to show the page."""
    for tag in soup.find_all(list(_FETCHED)):
        if address := tag.get(_FETCHED[tag.name]):
            yield str(address)
    for tag in soup.find_all("link", href=True):
        if not {"search", "index", "next", "prev", "canonical"} & set(_relations(tag)):
            yield str(tag["href"])
    for tag in soup.find_all("style"):
        yield from _CSS_FETCH.findall(tag.get_text())
    for tag in soup.find_all("meta", attrs={"http-equiv": re.compile("^refresh$", re.IGNORECASE)}):
        yield str(tag.get("content")).partition("url=")[2]


def _relations(tag: Tag) -> list[str]:
    relations = tag.get("rel")
    return relations.split() if isinstance(relations, str) else list(relations or ())


def _follow(html: Path, page: Path, reference: str, anchors: dict[Path, set[str]]) -> Iterator[str]:
    parts = urlsplit(reference)
    if parts.scheme == "data":
        return
    path = unquote(parts.path)
    target = (page.parent / path).resolve() if path else page
    if target.is_dir():
        target /= "index.html"
    where = page.relative_to(html).as_posix()
    if not target.is_file() or not target.is_relative_to(html.resolve()):
        yield f"{where} leads to {reference}, which is not there"
    elif (anchor := unquote(parts.fragment)) and anchor not in anchors.get(target, {anchor}):
        yield f"{where} leads to {reference}, but that page has no such anchor"
