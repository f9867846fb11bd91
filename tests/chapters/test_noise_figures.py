"""The noise chapter's figures: what they plot, worked by hand, and that they can be drawn."""

import pandas as pd
import pytest
from drawing import draw, rows_of

from lib.chapters.noise.figures import (
    degradation_chart,
    degradation_table,
    kind_curves,
    loss_table,
    severity_curves,
    training_curves,
)
from lib.chapters.noise.robustness import JUDGED, RECALLS, compare_degradation
from lib.chapters.shared import charts
from lib.chapters.shared.verdicts import PAPER_METHOD

KINDS = {"captions": ("word drop", "typing errors"), "images": ("JPEG",)}
SLOPES = {"fixed": 2.0, PAPER_METHOD: 2.0, "other": 3.0}


def rows(method, seed, what, level, **extra):
    """20 at seed 0 and 22 at seed 1, less the method's slope times the level."""
    value = 20.0 + 2 * seed - SLOPES[method] * level
    metrics = dict.fromkeys(RECALLS, value)
    return {"method": method, "seed": seed, "what": what, "level": level, **extra, **metrics}


@pytest.fixture(scope="module")
def training():
    levels = {"mismatched": [0.0, 0.4], "captions": [0.0, 0.8], "images": [0.0, 0.4, 0.8]}
    cases = [(what, level) for what, own in levels.items() for level in own]
    return pd.DataFrame([rows(m, seed, *case) for m in SLOPES for case in cases for seed in (0, 1)])


@pytest.fixture(scope="module")
def test():
    return pd.DataFrame(
        [
            rows(method, seed, what, level, kind=kind)
            for method in SLOPES
            for what, kinds in KINDS.items()
            for kind in kinds
            for level in (0, 3)
            for seed in (0, 1)
        ]
    )


def data_of(chart):
    """The only table that a chart carries, and its specification."""
    return pd.DataFrame(rows_of(chart)), chart.to_dict()


def test_training_curves_hold_the_mean_and_its_interval(training):
    data, _ = data_of(training_curves(training))
    assert sorted(data["level"].unique()) == [0, 40, 80]  # Percent.
    assert sorted(data["panel"].unique()) == ["mismatched pairs", "noisy captions", "noisy images"]
    row = data.query(
        "method == 'other' and panel == 'noisy images' and level == 80 and "
        "direction == 'text → image'"
    )
    # 17.6 and 19.6: mean 18.6, standard error 1, and t of one degree of freedom is 12.706.
    assert row[["mean", "low", "high"]].to_numpy()[0] == pytest.approx(
        [18.6, 18.6 - 12.706, 18.6 + 12.706], abs=1e-3
    )


def test_test_noise_is_shown_as_a_mean_and_kind_by_kind(test):
    test = test.copy()
    test.loc[(test["kind"] == "word drop") & (test["level"] == 3), "i2t_r1"] -= 4
    mean, _ = data_of(severity_curves(test))
    row = mean.query(
        "method == 'fixed' and panel == 'noisy captions' and level == 3 and "
        "direction == 'image → text'"
    )
    assert row["mean"].tolist() == [21 - 6 - 2]
    by_kind, spec = data_of(kind_curves(test))
    assert by_kind["kind"].unique().tolist() == ["word drop", "typing errors", "JPEG"]
    assert spec["facet"]["sort"] == ["word drop", "typing errors", "JPEG"]


def test_the_chart_of_differences_has_every_comparison(training, test):
    compared = compare_degradation(training, test, 0.3)
    data, spec = data_of(degradation_chart(compared, 0.3))
    assert len(data) == 2 * 2 * len(JUDGED)
    assert set(data["inside"]) == {0.3}
    assert set(data["outside"]) == {-0.3}
    assert spec["facet"]["row"]["sort"] == compared["condition"].unique().tolist()
    table = degradation_table(compared)
    assert table.columns.tolist()[:3] == ["method", "noise", "metric"]
    # By hand: 3 - 2 points a unit of level, at rate 0.4.
    assert table.iloc[10]["difference, points"] == "+0.40 [+0.40, +0.40]"
    assert table.iloc[0]["difference, points"] == "identical in all 2 runs"


def test_recall_without_noise_and_with_it(training, test):
    table = loss_table(training, test)
    assert len(table) == len(JUDGED) * len(SLOPES)
    by_hand = {
        # Clean: 21. Lost: slope times level, 0.8, 2.4 and 9 of it.
        ("40 % mismatched pairs", "fixed"): "21.00 → 20.20 (-4 %)",
        ("80 % noisy images", "other"): "21.00 → 18.60 (-11 %)",
        ("test captions, severity 3", "other"): "21.00 → 12.00 (-43 %)",
    }
    for (noise, method), shown in by_hand.items():
        row = table[(table["noise"] == noise) & (table["method"] == method)]
        assert row["R@1 image → text"].tolist() == [shown]
        assert row["R@1 text → image"].tolist() == [shown]


def test_the_figures_can_be_drawn_and_fit_a_page(training, test):
    charts.enable()
    compared = compare_degradation(training, test, 0.3)
    for chart in (
        training_curves(training),
        severity_curves(test),
        kind_curves(test),
        degradation_chart(compared, 0.3),
    ):
        _, picture = draw(chart)
        width = float(picture.split('width="')[1].split('"')[0])
        assert 400 < width <= 640
