"""Text: of files in a terminal and in a chart it is read and does nothing; hints at names."""

import unicodedata
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.chapters.shared import charts
from lib.datasets import CorpusError
from lib.datasets.report import Problem
from lib.utils.text import did_you_mean, nearest, printable

HOSTILE = [
    "\x1b[2J\x1b[31mred", "\x9b31mred", "\x07\x08\r", "a\x00b", "\u202egpj.exe\u202c",
    "\u2066x\u2069", "\u200fx", "a\u2028b\u2029c", "\ufeffx", "\U000e0041", "\ufffe",
    "\U0010ffff", "\ue000", "\udcff", "{eval}`1` {download}`/etc/passwd`",
    "```{include} /etc/passwd", "<script>alert(1)</script>",
]  # fmt: skip


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_text_becomes_visible(text):
    shown = printable(f"before {text} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert shown.isprintable()
    # A terminal of any encoding that knows ASCII can show what was not text.
    added = set(shown) - set(text)
    assert all(c.isascii() for c in added)


@given(st.text())
def test_letters_stay_and_nothing_else_gets_through(text):
    shown = printable(text)
    assert printable(shown) == shown
    shown.encode()
    for c in shown:
        assert c in "\n\u00ad\u200c\u200d" or unicodedata.category(c)[0] not in "C"
    if all(unicodedata.category(c)[0] in "LMNPS" for c in text):
        assert shown == text


@pytest.mark.parametrize(
    "text", ["a\u00a0b", "نمی\u200cخواهم", "👩\u200d👧", "two\nlines", "Zwei Boote ."]
)
def test_writing_of_any_language_stays(text):
    assert printable(text) == text


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_and_a_report_of_files_are_printable(text):
    problem = Problem("missing image", f"{text}.jpg", "line\nbreak")
    assert str(problem).isprintable()
    error = CorpusError(f"{text}.jpg cannot be read")
    assert str(error) == f"{printable(text)}.jpg cannot be read"
    assert error.args == (f"{text}.jpg cannot be read",)


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\udcff"])
def test_a_chart_shows_any_text(text):
    """At a control character the library that draws aborts the process, the kernel with it."""
    table = pd.DataFrame({"caption": [text, "A red kite ."], "recall": [1, 2]})
    drawn = alt.Chart(table).mark_bar().encode(x="recall:Q", y="caption:N", tooltip="caption:N")
    spec = drawn.properties(title=f"title {text}").to_dict()
    output = charts.render(spec)
    for svg in (output["image/svg+xml"], charts.static_svg(spec)):
        words = [node.text for node in ElementTree.fromstring(svg).iter() if node.text]
        assert f"title {printable(text)}" in words
    (rows,) = output[charts.MIME_TYPE]["datasets"].values()
    assert [row["caption"] for row in rows] == [printable(text), "A red kite ."]


@pytest.mark.parametrize(
    ("name", "found"),
    [("epohcs", "epochs"), ("seed", "seeds"), ("epochs", "epochs"), ("xyz", None), ("", None)],
)
def test_the_nearest_name_and_its_hint(name, found):
    for known, expected in (({"seeds": 1, "epochs": 2}, found), ([], None)):
        assert nearest(name, known) == expected
        hint = f" (did you mean '{expected}'?)" if expected else ""
        assert did_you_mean(name, known) == hint
