"""Figures and tables: what they say, that they can be drawn, that they stay small and escaped."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny_book
from bs4 import BeautifulSoup
from idle import IdleLab
from PIL import Image

from lib.chapters import corpus
from lib.chapters.baseline import tuning_curve
from lib.chapters.corpus import learning_curve
from lib.chapters.main_comparison import difference_grid
from lib.chapters.shared import charts, figures
from lib.chapters.shared.corpus_facts import corpus_facts
from lib.chapters.shared.figures import (
    METRICS,
    difference_chart,
    difference_table,
    leaderboard,
    path_chart,
    show_table,
    summarise,
)
from lib.chapters.shared.traces import path_table
from lib.datasets import Sample
from lib.runs import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunConfig, RunRecord, Store
from lib.training import Lab


def runs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "collapsed": False}
            | dict.fromkeys(METRICS, 10.0 + seed + shift)
            for shift, method in enumerate(("fixed", "variance × direction"))
            for seed in range(3)
        ]
    )


def differences() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": method,
                "metric": metric,
                "estimate": 0.5,
                "low": 0.1,
                "high": 0.9,
                "wide_low": 0.0,
                "wide_high": 1.0,
                "identical": 0,
                "seeds": 20,
                "bayes_factor": 12.34,
                "verdict": "improves",
            }
            for method in ("variance × direction", "</script><b>rival</b>")
            for metric in ("i2t R@1", "t2i R@1")
        ]
    )


def record(steps: int) -> RunRecord:
    table = np.ones((steps, len(STEP_COLUMNS)), dtype=np.float32)
    table[:, STEP_COLUMNS.index("weight_i2t")] = 1 + np.arange(steps) / steps
    return RunRecord(
        RunConfig(), "x", 1, dict.fromkeys(TEST_COLUMNS, 1.0),
        np.ones((1, len(EPOCH_COLUMNS))), table, False, 0.0, {},
    )  # fmt: skip


def test_summary_has_the_t_interval():
    (row,) = summarise(runs().query("method == 'fixed'"), ["method"], "rsum").itertuples()
    # 10, 11, 12: mean 11, standard error 1/√3, t quantile with 2 degrees 4.3027.
    assert row.mean == 11
    assert row.high - row.mean == pytest.approx(4.302652729911275 / 3**0.5)


def test_leaderboard_keeps_the_order_and_says_its_interval():
    board = leaderboard(runs())
    assert list(board["method"]) == ["fixed", "variance × direction"]
    assert board["rsum"].tolist() == ["11.0 ± 2.5", "12.0 ± 2.5"]


def test_leaderboard_says_which_methods_collapsed():
    table = runs()
    table.loc[[0, 2], "collapsed"] = True
    names = leaderboard(table)["method"].tolist()
    assert names == ["fixed (2 of 3 runs collapsed)", "variance × direction"]


CHARTS = {
    "learning": lambda: learning_curve(
        pd.DataFrame(
            {
                "images": [100, 100, 800, 800],
                "direction": ["i2t", "t2i"] * 2,
                "mean": [8.0, 6.0, 20.0, 14.0],
                "low": [7.0, 5.0, 19.0, 13.0],
                "high": [9.0, 7.0, 21.0, 15.0],
            }
        ),
        0.25,
    ),
    "tuning": lambda: tuning_curve(
        pd.DataFrame(
            {
                "temperature": [0.05, 0.1],
                "learning_rate": [1e-3, 1e-3],
                "validation_rsum": [180.0, 190.0],
                "standard_error": [1.0, None],
                "chosen": [False, True],
            }
        )
    ),
    "differences": lambda: difference_chart(
        differences(), 0.3, {"i2t R@1": 2.3, "t2i R@1": 1.5}, "Against fixed"
    ),
    "differences that the paper does not report": lambda: difference_chart(
        differences(), 0.3, None, "Against fixed"
    ),
    "weights": lambda: path_chart(
        path_table({"a": [record(20)], "b": [record(20)]}, "weight_i2t"), "weight", "Weights"
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_figure_draws_with_its_marks_and_a_title(name):
    spec = CHARTS[name]().to_dict()
    svg = charts.static_svg(spec)
    assert svg.count("<path") > 3
    assert "Infinite extent" not in svg
    assert "NaN" not in svg
    assert charts.description(spec) != "Chart"


def test_a_difference_chart_escapes_what_it_is_given():
    svg = charts.static_svg(CHARTS["differences"]().to_dict())
    assert "<b>rival" not in svg
    assert "&lt;b&gt;rival" in svg


def test_a_dashed_line_is_announced_only_where_there_is_one():
    with_gains, without = (
        json.dumps(difference_chart(differences(), 0.3, gains, "x").to_dict())
        for gains in ({"i2t R@1": 2.3, "t2i R@1": 1.5}, None)
    )
    assert "dashed" in with_gains
    assert "dashed" not in without
    assert "paper" not in without


def test_a_comparison_becomes_a_grid_of_signed_estimates():
    table = pd.DataFrame(
        [
            {"method": method, "metric": metric, "estimate": estimate, "verdict": verdict}
            for method, verdict in (("b", "improves"), ("a", "undecided"))
            for metric, estimate in zip(METRICS, np.linspace(-1, 1, len(METRICS)), strict=True)
        ]
    )
    grid = difference_grid(table)
    assert grid["method"].tolist() == ["b", "a"]
    assert list(grid.columns[1:]) == list(METRICS.values())
    assert grid.iloc[0, 1:].tolist()[:2] == ["-1.00 ▲", "-0.75 ▲"]
    assert grid.iloc[1, -1] == "+1.00"


def test_long_paths_are_thinned_and_say_so():
    replicated = {f"m{i}": [record(4000)] for i in range(3)}
    spec = path_chart(path_table(replicated, "weight_i2t"), "weight", "Weights").to_dict()
    (rows,) = (rows for rows in spec["datasets"].values() if len(rows) > 2)
    assert len(rows) <= figures.MAX_POINTS
    assert "every" in json.dumps(spec["title"])


def test_path_table_spans_the_seeds():
    low, high = record(4), record(4)
    high.steps[:, STEP_COLUMNS.index("weight_i2t")] += 0.5
    table = path_table({"a": [low, high]}, "weight_i2t")
    np.testing.assert_allclose(table["high"] - table["low"], 0.5)
    np.testing.assert_allclose(table["mean"] - table["low"], 0.25)


def test_a_table_is_rounded_renamed_and_escaped():
    table = pd.DataFrame({"method": ["<script>"], "r": [1.23456], "n": [3], "gone": [1.0]})
    shown = show_table(table, {"method": "method", "r": "R@1", "n": "runs"}, {"r": 1}).data
    assert "&lt;script&gt;" in shown
    assert "<td>1.2</td>" in shown
    assert "<td>3</td>" in shown
    assert "gone" not in shown


def test_differences_are_shown_with_sign_interval_and_no_false_zero():
    rows = differences().assign(baseline="fixed", p_adjusted=[0.0002, 0.04, 1.0, 0.5])
    rows.loc[0, ["estimate", "low", "high"]] = [-0.001, -0.25, 0.004]
    shown = difference_table(rows)
    assert shown["difference, points"].tolist()[:2] == [
        "+0.00 [-0.25, +0.00]",
        "+0.50 [+0.10, +0.90]",
    ]
    assert shown["p, adjusted"].tolist() == ["< 0.001", "0.040", "1.000", "0.500"]
    assert set(shown["Bayes factor"]) == {"12.3"}
    rows["identical"] = 20
    assert set(difference_table(rows)["difference, points"]) == {"identical in all 20 runs"}


def test_missing_numbers_are_dashes():
    assert "<td>–</td>" in show_table(pd.DataFrame({"x": [None, 1.5]}, dtype=float)).data


def test_corpus_facts_are_counted_once_and_read_back():
    facts = corpus_facts(Lab(Store()), "scenes")
    assert facts["images"].tolist() == [800, 200, 400]
    assert facts["captions"].tolist() == [4000, 1000, 2000]
    assert corpus.chance_recall(facts) == 0.25
    pd.testing.assert_frame_equal(facts, corpus_facts(IdleLab(), "scenes"))


@pytest.mark.tries("bad input")
def test_captions_are_shown_as_text_whatever_they_say(monkeypatch):
    """As HTML, which MyST passes on unread: a role or directive in it is text, too."""
    said = [tiny_book.HOSTILE, "```{include} /etc/passwd", "&lt;b&gt;", '" onerror="alert(1)']

    class Hostile:
        def split(self, name):
            return [Sample("p1.jpg", tuple(said), "train")]

        def load_image(self, sample):
            return Image.new("RGB", (2, 2))

    monkeypatch.setattr(corpus, "load_corpus", lambda *_, **__: Hostile())
    page = BeautifulSoup(corpus.examples("scenes").data, "html.parser")
    assert [item.text for item in page.select("li")] == said
    (image,) = page.select("img")
    assert set(image.attrs) == {"alt", "src"}
    assert image["alt"] == said[0]
    assert not page.select("script, b")


def test_examples_are_shown_only_where_the_licence_allows(monkeypatch):
    shown = corpus.examples("scenes", count=2).data
    assert shown.count("<img") == 2
    assert shown.count("<li>") == 10
    monkeypatch.setattr(corpus, "load_corpus", lambda *_, **__: pytest.fail("loaded"))
    assert "<img" not in corpus.examples("flickr8k").data
