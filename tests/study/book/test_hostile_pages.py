"""The book refuses sources that would make a broken page; its pages need no network."""

import re

import altair as alt
import pandas as pd
import pytest
import tiny_book

from lib.chapters.shared import charts
from lib.study.book import BookError, build
from lib.study.book.sources import check_sources


def test_a_page_without_network_or_scripts_still_shows_its_charts(html):
    # test_browser.py opens these pages in a browser.
    for name in tiny_book.CHAPTERS:
        text = (html / "book" / "results" / f"{name}.html").read_text(encoding="utf-8")
        boxes = re.findall(r'<div class="chart">\s*<img[^>]* src="([^"]+\.svg)"', text)
        assert len(boxes) == 2
        for picture in boxes:
            assert (html / "book" / "results" / picture).is_file()


def test_a_chart_of_too_many_rows_is_refused_and_no_source_lifts_the_limit():
    charts.enable()
    many = pd.DataFrame({"step": range(5001), "loss": 0.0})
    drawn = alt.Chart(many).mark_line().encode(x="step", y="loss")
    with pytest.raises(alt.MaxRowsError):
        drawn.to_dict()
    sources = [*(tiny_book.ROOT / "lib").rglob("*.py"), *tiny_book.ROOT.glob("notebooks/*.ipynb")]
    for path in sources:
        assert "disable_max_rows" not in path.read_text(encoding="utf-8"), path
        assert not re.search(r"max_rows\s*=", path.read_text(encoding="utf-8")), path


def test_an_unquoted_off_is_refused_with_the_reason(small_root):
    config = small_root / "_config.yml"
    assert 'execute_notebooks: "off"' in config.read_text()
    config.write_text(config.read_text().replace('"off"', "off"))
    with pytest.raises(BookError, match=r"unquoted off.*false.*\"off\""):
        build("published", small_root)


def test_the_projects_own_book_has_no_fault():
    results = tiny_book.ROOT / "book" / "results"
    if not (results / "findings.json").exists():
        pytest.skip("the published notebooks have not been executed yet")
    check_sources(tiny_book.ROOT)
