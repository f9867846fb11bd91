"""Links from a chapter to its source notebook on other sites: all of them, or none."""

import json

import pytest
from tiny_book import ROOT

from lib.study.book import BookError, build


def test_without_an_address_no_page_links_to_a_notebook_on_another_site(html):
    for page in (html / "book").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "colab.research" not in text
        assert "mybinder" not in text


def test_only_pages_of_results_link_to_their_source_and_name_what_made_them(small_root):
    (small_root / "pyproject.toml").write_text(
        '[project]\nversion = "1.2"\n[project.urls]\nRepository = "https://github.com/o/n"\n'
    )
    (executed,) = (small_root / "book" / "results").glob("*.ipynb")
    made = {"profile": "full 0a1b", "run records": "2c3d", "lib.metrics": "4e5f"}
    (executed.parent / "executed.json").write_text(json.dumps({executed.stem: made}))
    build("published", small_root)
    pages = small_root / "_build" / "published" / "html" / "book"
    (result,) = (pages / "results").glob("*.html")
    place = f"o/n/blob/v1.2/notebooks/{result.stem}.ipynb"
    text = result.read_text(encoding="utf-8")
    assert f'href="https://colab.research.google.com/github/{place}"' in text
    assert f'href="https://github.com/{place}"' in text
    assert "https://mybinder.org/v2/gh/o/n/v1.2?urlpath=lab%2Ftree%2Fnotebooks" in text
    assert (ROOT / "notebooks" / f"{result.stem}.ipynb").is_file()
    assert "the profile full (0a1b), the run records 2c3d.</p>" in text
    for page in pages.glob("*.html"):
        assert "colab.research" not in page.read_text(encoding="utf-8")
        assert "Made from" not in page.read_text(encoding="utf-8")


def test_an_unusable_address_stops_the_build(small_root):
    (small_root / "pyproject.toml").write_text(
        '[project]\nversion = "1"\n[project.urls]\nRepository = "https://example.org/o/n"\n'
    )
    with pytest.raises(BookError, match=r"https://github\.com/OWNER/NAME"):
        build("published", small_root)
