"""The page of all comparisons: counted, grouped by question, and in numbers that one can read."""

import pytest
import tiny_book
from bs4 import BeautifulSoup

from lib.study.book.comparisons import counted, read_comparisons, table, total
from lib.study.book.values import FindingsError


def test_verdicts_are_counted():
    rows = [tiny_book.comparison(verdict=v) for v in ("undecided", "improves", "undecided")]
    assert counted(rows) == "1 improves, 2 undecided"
    assert total(rows) == "3 comparisons: 1 improves, 2 undecided."


def test_a_row_has_the_numbers_of_its_comparison():
    rows = [
        tiny_book.comparison(setting="hot"),
        tiny_book.comparison(identical=20, bayes_factor=1e6, p=1e-9, p_adjusted=5e-8),
        tiny_book.comparison(unit="of the measure", estimate=-0.00125, low=-0.002, high=0.0),
    ]
    page = BeautifulSoup(table(rows), "html.parser")
    cells = [[cell.text for cell in row.find_all("td")] for row in page.tbody.find_all("tr")]
    assert cells[0] == [
        "variance × direction − fixed", "i2t R@1", "1,000", "hot", "20", "+0.06 [−0.06, +0.19]",
        "0.010", "0.500", "1/4.0", "= equivalent",
    ]  # fmt: skip
    assert cells[1][5:9] == ["identical in all 20 runs", "< 0.001", "< 0.001", "> 1,000"]
    assert cells[2][5] == "−0.0013 [−0.0020, 0.0000]"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "run `study quick`"), (b"[{}]", "is malformed")]
)
def test_a_missing_or_malformed_file_is_named(tmp_path, content, said):
    path = tmp_path / "comparisons.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FindingsError, match=f"{path}.*{said}"):
        read_comparisons(path)


def test_the_page_shows_every_comparison_and_links_its_chapter(html):
    page = BeautifulSoup((html / "book" / "comparisons.html").read_text(), "html.parser")
    main = page.select_one("article")
    assert "3 comparisons: 1 worsens, 2 equivalent." in main.text
    assert len(main.select("details tbody tr")) == 3
    assert "identical in all 20 runs" in main.text
    links = {link["href"] for link in main.select("a.reference.internal")}
    assert any(link.endswith("results/main-comparison.html") for link in links)
    assert main.find("script") is None
