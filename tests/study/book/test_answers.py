"""The answer at the top of a chapter."""

import tiny_book
from bs4 import BeautifulSoup


def test_the_answer_is_shown_at_the_top_and_where_it_is_computed(html):
    page = (html / "book" / "results" / "baseline.html").read_text(encoding="utf-8")
    soup = BeautifulSoup(page, "html.parser")
    article = soup.find("article")
    (box,) = article.select(".answer")
    assert tiny_book.ANSWER in box.get_text()
    assert "0.04" not in box.get_text(), "only sentences are repeated"
    assert article.get_text().count(tiny_book.ANSWER) == 2
    whole = str(article)
    assert whole.index("The loss ") < whole.index('class="answer') < whole.index("<table")
    ids = [tag["id"] for tag in article.find_all(id=True)]
    assert len(ids) == len(set(ids))


def test_a_page_without_an_answer_has_no_box(html):
    page = (html / "book" / "method.html").read_text(encoding="utf-8")
    assert not BeautifulSoup(page, "html.parser").select(".answer")
