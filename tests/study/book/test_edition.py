"""Both editions, built: the content of the pages, and the faults that stop a build."""

import json
import os
import re
import time

import pytest
import tiny_book
from bs4 import BeautifulSoup

from lib.chapters.shared import charts
from lib.study.book import BookError, build
from lib.study.book.pages import check_pages
from lib.study.book.sources import page_names


def soup(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def words(tag):
    return " ".join(tag.get_text(" ").split())


def test_every_page_of_the_toc_is_built_and_whole(book_root, html):
    pages = {path.relative_to(html).as_posix() for path in (html / "book").rglob("*.html")}
    assert pages == {f"{name}.html" for name in page_names(book_root)}
    assert {f"book/results/{name}.html" for name in tiny_book.CHAPTERS} < pages
    assert check_pages(html) == []
    assert "url=book/index.html" in (html / "index.html").read_text()


def test_no_page_has_a_network_address_a_widget_or_a_progress_bar(html):
    for page in html.glob("book/**/*.html"):
        text = page.read_text(encoding="utf-8")
        found = re.search("require.?js|mathjax@|unpkg|jsdelivr|cdnjs|googleapis", text.lower())
        assert not found, f"{page.name} holds {found}"
        assert not re.search(r"HBox\(|widget state|widget-state|it/s\]", text)


def test_the_scoreboard_shows_each_claim_with_its_answer(html):
    board = soup(html / "book" / "index.html").select_one(".scoreboard")
    rows = [words(row) for row in board.select(".claim")]
    assert len(rows) == 5
    assert words(board.select_one(".bottom-line")) == (
        "Of the paper’s five claims, one is confirmed, in one there is no difference that "
        "matters, in one the opposite is found and two are not tested yet. What helps instead, "
        "against the tuned fixed loss: fixed weights, tuned (+0.50 points)."
    )
    assert "1. It retrieves better than fixed weights" in rows[0]
    assert "2.3 points from image to text" in rows[0]
    assert rows[0].startswith("= equivalent 1. It retrieves better than fixed weights No, it makes")
    # The estimates are -0.0125 and 0.0625, each with an interval of 0.125 to either side.
    assert "no difference that matters: −0.01 to +0.06 points." in rows[0]
    assert [words(numbers) for numbers in board.select(".claim")[0].select(".forest-numbers")] == [
        "−0.01 [−0.14, +0.11] =",
        "+0.06 [−0.06, +0.19] =",
    ]
    assert "20 seeds · Scenes · 1,000 training images" in rows[0]
    assert "▲ improves" in rows[1]
    assert rows[2].startswith("○ open 3. It withstands noise better Not tested yet. The paper: ")
    assert "▼ worsens" in rows[4]
    (link,) = board.select(".claim")[0].select("a")
    assert link["href"] == "results/main-comparison.html"
    assert words(link) == tiny_book.CHAPTERS["main-comparison"]


def test_each_answered_claim_has_a_figure_with_its_numbers_as_text(html):
    claims = soup(html / "book" / "index.html").select(".scoreboard .claim")
    assert [len(claim.select("figure")) for claim in claims] == [1, 1, 0, 0, 1]
    first, second = (row["aria-label"] for row in claims[0].select("svg[role=img]"))
    assert first == ("i2t R@1: −0.01 points, 95 % interval −0.14 to +0.11, paper: +2.3: equivalent")
    assert "t2i R@1: +0.06 points" in second
    assert len(claims[0].select(".paper[x1]")) == 2
    assert not claims[1].select(".paper[x1]")


def test_the_recommended_setting_is_shown_with_its_gain(html):
    shown = soup(html / "book" / "index.html").select_one(".recommendation")
    for said in ("fixed weights, tuned", "Nothing beats it", "temperature: 0.1", "20 seeds"):
        assert said in words(shown)
    labels = [words(label) for label in shown.select(".forest-label")]
    assert labels == ["i2t R@1, 100 images", "i2t R@1, 6,000 images"]
    assert len(shown.select(".band")) == 2
    assert not shown.select("script, img, b")
    assert shown.select_one("a")["href"] == "results/main-comparison.html"


def test_the_page_tells_that_there_is_no_recommended_setting(small_root):
    (small_root / "book" / "index.md").write_text("# A\n\n```{recommendation}\n```\n")
    findings = small_root / "book" / "results" / "findings.json"
    findings.write_text(json.dumps({**json.loads(findings.read_text()), "recommendation": None}))
    page = soup(build("published", small_root))
    assert "No setting has been recommended yet." in words(page.article)
    assert not page.select(".recommendation")


def test_hostile_text_in_data_is_shown_and_never_run(html):
    board = soup(html / "book" / "index.html").select_one(".scoreboard")
    assert "<script>alert(1)</script>" in words(board)
    assert "{eval}`1` {download}`/etc/passwd` $x$ [a](b)" in words(board)
    assert not board.select("script, img, b, a[href=b]")
    page = soup(html / "book" / "results" / "corpus.html")
    for script in page.select("script:not([src])"):
        assert not script.get_text().startswith("alert")
    cell = page.select_one("td")
    assert cell.get_text() == tiny_book.HOSTILE
    assert not cell.select("*")
    assert all(image["src"] != "x" for image in page.select("img"))


def test_a_chart_has_a_picture_and_a_specification(html):
    page = html / "book" / "results" / "corpus.html"
    first, second = soup(page).select(".chart")
    drawn = tiny_book.chart(f"{tiny_book.CHAPTERS['corpus']} ({tiny_book.HOSTILE})").to_dict()
    drawn = charts.render(drawn)[charts.MIME_TYPE]
    spec = json.loads(first.select_one("script").get_text())
    assert spec["datasets"] == drawn["datasets"]
    assert spec["title"] == drawn["title"]
    picture = first.select_one("img")
    assert picture["alt"] == drawn["title"]
    svg = (page.parent / picture["src"]).read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "A red kite ." in svg
    assert json.loads(second.select_one("script").get_text())["width"] == "container"


def test_only_pages_with_charts_load_the_scripts_for_charts(html):
    def scripts(name):
        return [tag["src"] for tag in soup(html / "book" / name).select("script[src]")]

    assert any("charts.js" in source for source in scripts("results/corpus.html"))
    assert not any("charts.js" in source for source in scripts("index.html"))


def test_equations_need_no_script(html):
    page = soup(html / "book" / "method.html")
    assert len(page.select("math")) > 20
    assert "$" not in words(page.select_one("article"))
    assert not re.search(r"\\(frac|sum|ell)", words(page.select_one("article")))
    assert [words(number) for number in page.select(".eqno")] == ["(1)", "(2)"]


def test_the_data_of_a_finding_are_not_shown(html):
    page = words(soup(html / "book" / "results" / "main-comparison.html"))
    assert "One sentence." in page
    assert "p_adjusted" not in page


@pytest.fixture(scope="module")
def quick(book_root, html):
    """The first page of the quick edition."""
    tiny_book.take_over_scripts(html, book_root / "_build" / "quick" / "html")
    return build("quick", book_root)


def test_every_page_of_the_quick_edition_has_a_banner(book_root, quick):
    assert quick == book_root / "_build" / "quick" / "html" / "book" / "index.html"
    assert quick.is_absolute()
    pages = list(quick.parent.rglob("*.html"))
    assert len(pages) == len(page_names(book_root))
    for page in pages:
        banner = words(soup(page).select_one(".bd-header-announcement"))
        assert banner.startswith("Quick edition: Scenes corpus, 20 seeds, ")
        assert banner.endswith("— not the published result.")


def test_the_quick_edition_has_the_same_pages_and_text(quick, html):
    for page in (html / "book").rglob("*.html"):
        other = quick.parent / page.relative_to(html / "book")
        assert words(soup(other).article) == words(soup(page).article)
    assert not soup(html / "book" / "index.html").select(".bd-header-announcement")


def test_only_changed_pages_are_read_again(small_root):
    first = build("published", small_root)
    read = small_root / "_build" / "published" / ".doctrees" / "book"
    stamps = {path: path.stat().st_mtime_ns for path in read.rglob("*.doctree")}
    assert {path.stem for path in stamps} == {"index", "main-comparison"}

    started = time.monotonic()
    assert build("published", small_root) == first
    assert time.monotonic() - started < 20
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    findings = small_root / "book" / "results" / "findings.json"
    content = json.loads(findings.read_text())
    content["claims"][2]["verdict"] = "undecided"
    findings.write_text(json.dumps(content))
    later = time.time() + 5
    os.utime(findings, (later, later))
    build("published", small_root)
    changed = {path.stem for path in stamps if path.stat().st_mtime_ns != stamps[path]}
    assert changed == {"index"}
    assert "? undecided" in words(soup(first).select_one(".scoreboard"))

    # A page that is no longer in the toc is removed from the book.
    toc = small_root / "_toc.yml"
    toc.write_text("format: jb-book\nroot: book/index\n")
    (small_root / "book" / "results" / "main-comparison.ipynb").unlink()
    (small_root / "book" / "index.md").write_text("# The question\n")
    build("published", small_root)
    assert [page.name for page in first.parent.rglob("*.html")] == ["index.html"]


def test_a_warning_stops_every_build_until_it_is_mended(small_root):
    page = small_root / "book" / "index.md"
    page.write_text("# The question\n\nSee [nowhere](no-such-page.md).\n")
    for _ in range(2):
        with pytest.raises(BookError, match=r"no-such-page\.md") as caught:
            build("published", small_root)
        assert "index.md" in str(caught.value)


def test_a_broken_link_of_raw_html_stops_the_build(small_root):
    page = small_root / "book" / "index.md"
    page.write_text('# The question\n\n<a href="gone.html">gone</a>\n')
    with pytest.raises(BookError, match=r"book/index\.html leads to gone\.html"):
        build("published", small_root)


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("{finding}`1.no_such_value`", "'1.no_such_value'"),
        ("{verdict}`splendid`", "'splendid'"),
        ("$\\frac{a}$", r"\frac{a}"),
        ("{cite}`nobody1999nothing`", "nobody1999nothing"),
        ("{doc}`results/gone`", "results/gone"),
    ],
)
def test_a_missing_value_or_target_that_a_page_refers_to_is_named(small_root, text, culprit):
    (small_root / "book" / "index.md").write_text(f"# The question\n\n{text}\n")
    with pytest.raises(BookError) as caught:
        build("published", small_root)
    assert culprit in str(caught.value).replace("\\\\", "\\")
    assert "index" in str(caught.value)


def test_missing_findings_stop_the_build(small_root):
    path = small_root / "book" / "results" / "findings.json"
    path.unlink()
    with pytest.raises(BookError) as caught:
        build("published", small_root)
    assert str(path) in str(caught.value)


def test_a_chart_without_a_picture_stops_the_build(small_root):
    path = small_root / "book" / "results" / "main-comparison.ipynb"
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/svg+xml", None)
    path.write_text(json.dumps(content))
    with pytest.raises(BookError, match=r"main-comparison\.ipynb.*no static picture"):
        build("published", small_root)


def test_the_quick_edition_without_executed_notebooks_is_refused(small_root):
    with pytest.raises(BookError, match="run `study quick` first"):
        build("quick", small_root)


def test_malformed_findings_of_the_quick_edition_are_named(small_root):
    results = small_root / "_build" / "quick" / "results"
    results.mkdir()
    (results / "findings.json").write_text('{"claims": [{}]}')
    with pytest.raises(BookError, match=r"findings\.json is malformed"):
        build("quick", small_root)


def test_a_number_in_prose_comes_from_the_findings(small_root):
    page = small_root / "book" / "index.md"
    page.write_text("# A\n\nIt gains {finding}`1.estimates.1.estimate:+.3f` points.\n")
    index = build("published", small_root)
    assert "It gains +0.062 points." in words(soup(index))


def test_the_renderer_makes_no_output_that_needs_a_network():
    made = charts.render(tiny_book.chart("Recall").to_dict())
    assert "text/html" not in made
    assert made["text/plain"] == "Recall"


def test_the_static_picture_may_not_load_data():
    spec = {"data": {"url": "https://example.org/data.csv"}, "mark": "point"}
    with pytest.raises(ValueError, match=r"example\.org"):
        charts.static_svg(spec)


def test_a_chart_as_wide_as_the_page_has_a_picture_of_the_same_shape():
    svg = charts.static_svg(tiny_book.chart("Recall", "container").to_dict())
    width = int(re.search(r'width="(\d+)"', svg).group(1))
    assert charts.STATIC_WIDTH < width < charts.STATIC_WIDTH * 1.5
