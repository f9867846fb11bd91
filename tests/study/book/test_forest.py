"""Forest plots: every mark is at the position of its value, and data are shown only as text."""

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from tiny_book import HOSTILE

from lib.chapters.shared.findings import Estimate
from lib.study.book.forest import digits_of, forest, panels, scale_of

WIDE = 1e6


def estimate(value=0.0, low=-1.0, high=3.0, **changed):
    values = {
        "metric": "i2t R@1",
        "baseline": "fixed",
        "method": "variance × direction",
        "estimate": value,
        "low": low,
        "high": high,
        "seeds": 20,
        "verdict": "undecided",
    }
    return Estimate(**{**values, **changed})


def drawing(estimates, gains=None):
    return BeautifulSoup(forest(estimates, gains or {}), "html.parser")


def place(mark, name):
    assert mark[name].endswith("%")
    return float(mark[name].removesuffix("%"))


def words(tag):
    return " ".join(tag.get_text(" ").split())


def test_marks_are_at_the_positions_of_their_values():
    # From -1 to 3 with 6 % of 4 added to either end: the scale runs from -1.24 to 3.24, 4.48 wide.
    (row,) = drawing([estimate(1.0, margin=0.5)], {"i2t R@1": 2.0}).select("svg[role=img]")
    names = ("zero", "paper", "interval", "mark", "band")
    at = {name: row.select_one(f".{name}") for name in names}
    assert place(at["zero"], "x1") == place(at["zero"], "x2") == pytest.approx(27.68, abs=0.01)
    assert place(at["mark"], "cx") == pytest.approx(50.0, abs=0.01)
    assert place(at["interval"], "x1") == pytest.approx(5.36, abs=0.01)
    assert place(at["interval"], "x2") == pytest.approx(94.64, abs=0.01)
    assert place(at["paper"], "x1") == pytest.approx(72.32, abs=0.01)
    assert place(at["band"], "x") == pytest.approx(16.52, abs=0.01)
    assert place(at["band"], "width") == pytest.approx(22.32, abs=0.01)
    assert "forest-undecided" in at["mark"]["class"]


def test_ticks_are_round_and_at_the_positions_of_their_labels():
    scale = scale_of([estimate(1.0)], {})
    assert scale.ticks == (-1.0, 0.0, 1.0, 2.0, 3.0)
    texts = drawing([estimate(1.0)]).select(".forest-scale text")
    assert [text.get_text() for text in texts] == ["−1", "0", "+1", "+2", "+3"]
    assert place(texts[0], "x") == pytest.approx(5.36, abs=0.01)
    assert place(texts[2], "x") == pytest.approx(50.0, abs=0.01)


def test_a_row_has_its_numbers_as_text():
    found = drawing([estimate(1.0, margin=0.3, unit="epochs")], {"i2t R@1": 2.3})
    (row,) = found.select("svg[role=img]")
    assert row["aria-label"] == (
        "i2t R@1: +1.00 epochs, 95 % interval −1.00 to +3.00, ±0.3 counts as none, paper: +2.3: "
        "undecided"
    )
    assert row.select_one("title").get_text() == row["aria-label"]
    assert words(found.select_one(".forest-numbers")) == "+1.00 [−1.00, +3.00] ?"
    assert words(found.select_one(".forest-label")) == "i2t R@1 paper: +2.3"
    assert words(found.select_one(".forest-unit")) == (
        "epochs, better → · shaded: ±0.3 counts as no difference · dashed: the paper’s gain"
    )


def test_a_missing_margin_or_gain_is_not_drawn_or_explained():
    found = drawing([estimate()], {"another metric": 2.0})
    assert not found.select(".band, .paper")
    assert words(found.select_one(".forest-unit")) == "points, better →"


def test_small_differences_keep_their_digits():
    (row,) = drawing([estimate(0.0012, 0.0007, 0.0031)]).select(".forest-numbers")
    assert words(row) == "+0.0012 [+0.0007, +0.0031] ?"


def test_each_unit_and_better_direction_has_its_own_scale():
    estimates = [
        estimate(metric="a"),
        estimate(metric="b", unit="epochs", lower_is_better=True),
        estimate(metric="c"),
        estimate(metric="d", lower_is_better=True),
    ]
    assert [[e.metric for e in panel] for panel in panels(estimates)] == [["a", "c"], ["b"], ["d"]]
    found = drawing(estimates)
    assert len(found.select(".forest-scale")) == 3
    captions = [words(caption) for caption in found.select(".forest-unit")]
    assert captions == ["points, better →", "← better, epochs", "← better, points"]


def test_rows_are_listed_under_the_two_methods_that_they_compare():
    estimates = [estimate(baseline=name, metric=m) for name in ("entropy", "spread") for m in "ab"]
    parts = [words(part) for part in drawing(estimates).select(".forest-pair, .forest-label")]
    against = "variance × direction, against "
    assert parts == [f"{against}entropy", "a", "b", f"{against}spread", "a", "b"]


def test_the_number_of_images_is_shown_if_estimates_have_it():
    found = drawing([estimate(train_images=6000)])
    assert words(found.select_one(".forest-label")) == "i2t R@1, 6,000 images"


def test_different_margins_are_drawn_but_their_size_is_not_named():
    found = drawing([estimate(margin=0.5), estimate(margin=1.0)])
    first, second = (place(band, "width") for band in found.select(".band"))
    assert second == pytest.approx(2 * first, abs=0.02)
    assert "shaded: counts as no difference" in words(found.select_one(".forest-unit"))


def test_estimates_of_zero_still_have_a_scale():
    found = drawing([estimate(0.0, 0.0, 0.0)])
    assert place(found.select_one(".mark"), "cx") == 50.0
    assert words(found.select_one(".forest-numbers")).startswith("0.00 [0.00, 0.00]")


def test_data_are_shown_as_text():
    hostile = estimate(metric=HOSTILE, method=HOSTILE, baseline=HOSTILE, unit=HOSTILE)
    found = drawing([hostile])
    assert not found.select("script, img, b")
    assert found.select_one("svg[role=img]")["aria-label"].startswith(HOSTILE)
    assert HOSTILE in found.select_one(".forest-pair").get_text()


numbers = st.floats(-WIDE, WIDE)


@given(
    st.lists(
        st.tuples(
            st.tuples(numbers, numbers, numbers).map(sorted), st.none() | st.floats(1e-6, WIDE)
        ),
        min_size=1,
        max_size=12,
    ),
    st.dictionaries(st.just("i2t R@1"), numbers),
)
def test_marks_of_any_numbers_are_inside_the_scale_and_in_order(rows, gains):
    estimates = [estimate(mid, low, high, margin=m) for (low, mid, high), m in rows]
    scale = scale_of(estimates, gains)
    assert 2 <= len(scale.ticks) <= 6
    assert 0.0 in scale.ticks
    labels = [f"{tick:.{scale.digits}f}" for tick in scale.ticks]
    assert len(set(labels)) == len(labels)
    assert digits_of(scale) >= 2
    found = drawing(estimates, gains)
    assert "nan" not in str(found).lower()
    for row in found.select("svg[role=img]"):
        left, right = (place(row.select_one(".interval"), name) for name in ("x1", "x2"))
        assert 0 <= left <= place(row.select_one(".mark"), "cx") <= right <= 100
    for text in found.select(".forest-scale text"):
        assert 0 <= place(text, "x") <= 100
