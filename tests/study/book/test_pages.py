"""Built pages without a fault, and pages with one fault each."""

import pytest

from lib.study.book.pages import check_pages


@pytest.fixture
def html(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.html").write_text('<h2 id="here">Other</h2><a name="old"></a>')
    (tmp_path / "a picture.svg").write_text("<svg/>")
    (tmp_path / "style.css").write_text("p {background: url(data:image/png;base64,AA)}")
    return tmp_path


@pytest.mark.parametrize(
    "body",
    [
        '<a href="sub/other.html#here">x</a>',
        '<a href="sub/other.html#old">x</a>',
        '<a href="#">x</a><a id="top" href="#top">x</a><a>x</a>',
        '<a href="https://arxiv.org/abs/2503.03202">x</a><a href="mailto:a@b.org">x</a>',
        '<img src="a%20picture.svg"><img src="data:image/png;base64,AA">',
        '<link rel="stylesheet" href="style.css?v=1"><script>"https://x.org"</script>',
        '<form action="sub/other.html"></form><a href="javascript:history.back()">x</a>',
    ],
)
def test_a_page_without_a_fault_passes(html, body):
    (html / "page.html").write_text(body)
    assert check_pages(html) == []


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        ('<a href="gone.html">x</a>', "gone.html"),
        ('<a href="sub/other.html#gone">x</a>', "sub/other.html#gone"),
        ('<a href="#gone">x</a>', "#gone"),
        ('<a href="../outside.html">x</a>', "../outside.html"),
        ('<a href="sub">x</a>', "sub"),
        ('<img src="gone.svg">', "gone.svg"),
        ('<script src="gone.js"></script>', "gone.js"),
        ('<script src="https://cdn.org/require.js"></script>', "https://cdn.org/require.js"),
        ('<script src="//cdn.org/a.js"></script>', "//cdn.org/a.js"),
        ('<link rel="stylesheet" href="http://fonts.org/a.css">', "http://fonts.org/a.css"),
        ('<link rel="preconnect" href="https://fonts.org">', "https://fonts.org"),
        ('<img src="https://img.org/a.png">', "https://img.org/a.png"),
        ('<iframe src="https://video.org/1"></iframe>', "https://video.org/1"),
        ('<style>@import "https://fonts.org/a.css";</style>', "https://fonts.org/a.css"),
        ('<meta http-equiv="Refresh" content="0; url=gone.html">', "gone.html"),
        ('<form action="gone.html"></form>', "gone.html"),
    ],
)
def test_a_broken_link_or_a_needed_network_is_named(html, body, culprit):
    (html.parent / "outside.html").write_text("not of the book")
    (html / "page.html").write_text(body)
    (problem,) = check_pages(html)
    assert "page.html" in problem
    assert culprit in problem


@pytest.mark.parametrize(
    "rule",
    [
        "@import 'https://fonts.org/a.css';",
        "p {background: url(https://fonts.org/a.css)}",
        '@font-face {src: url( "//fonts.org/a.css" )}',
    ],
)
def test_a_stylesheet_that_needs_a_network_is_named(html, rule):
    (html / "style.css").write_text(rule)
    (problem,) = check_pages(html)
    assert "style.css" in problem
    assert "//fonts.org/a.css" in problem
