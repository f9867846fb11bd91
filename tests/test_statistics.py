"""Paired statistics: hand-worked values, scipy as oracle, simulated coverage and error rates."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lib.statistics import (
    bootstrap_by_image,
    compare_pairs,
    detectable_effect,
    paired_comparison,
    verdict,
)


def test_by_hand():
    # Differences 1, 2, 0: mean 1, standard deviation 1, t quantile with 2 degrees 4.3027.
    comparison = paired_comparison([2.0, 4.0, 3.0], [1.0, 2.0, 3.0])
    half = 4.302652729911275 / 3**0.5
    assert comparison.estimate == pytest.approx(1)
    assert (comparison.low, comparison.high) == pytest.approx((1 - half, 1 + half))
    assert comparison.p_value == pytest.approx(2 * scipy.stats.t.sf(3**0.5, 2))
    assert comparison.seeds == 3


@given(
    st.lists(
        st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=3, max_size=30, unique=True
    ).filter(lambda pairs: np.std([a - b for a, b in pairs]) > 1e-3)
)
def test_agrees_with_a_one_sample_t_test_on_the_differences(pairs):
    treatment, baseline = np.array(pairs).T
    comparison = paired_comparison(treatment, baseline)
    oracle = scipy.stats.ttest_1samp(treatment - baseline, 0)
    assert comparison.p_value == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert comparison.low == pytest.approx(oracle.confidence_interval().low, abs=1e-6)


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=9))
def test_exchanging_the_methods_changes_the_sign_alone(values):
    other = np.arange(len(values)) ** 2 / 3
    one, two = paired_comparison(values, other), paired_comparison(other, values)
    assert one.estimate == pytest.approx(-two.estimate)
    assert one.low == pytest.approx(-two.high)
    assert one.p_value == pytest.approx(two.p_value)


def test_identical_results_are_no_difference_and_not_nan():
    comparison = paired_comparison([1.0, 2.0], [1.0, 2.0])
    assert (comparison.estimate, comparison.low, comparison.high) == (0, 0, 0)
    assert comparison.p_value == 1


def test_the_same_difference_at_every_seed():
    comparison = paired_comparison([1.5, 2.5, 3.5], [1.0, 2.0, 3.0])
    assert (comparison.low, comparison.high, comparison.p_value) == (0.5, 0.5, 0)


@pytest.mark.parametrize(
    ("treatment", "baseline", "message"),
    [
        ([1.0], [1.0], "at least 2 seeds"),
        ([1.0, 2.0], [1.0], "same seeds"),
        ([1.0, float("nan")], [1.0, 2.0], "pair 1 is not finite"),
    ],
)
def test_bad_pairs_are_refused(treatment, baseline, message):
    with pytest.raises(ValueError, match=message):
        paired_comparison(treatment, baseline)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.4, 1.2, 0.01, "improves"),
        (-1.2, -0.4, 0.01, "worsens"),
        (-0.1, 0.2, 0.9, "equivalent"),
        (0.05, 0.25, 0.0001, "equivalent"),
        (0.1, 0.31, 0.001, "improves"),
        (0.1, 0.9, 0.06, "undecided"),
        (-0.3, 0.1, 0.5, "undecided"),
    ],
)
def test_verdicts(low, high, p, expected):
    assert verdict(low, high, p, margin=0.3) == expected


def runs_table(values: dict[str, list[float]], seeds=None) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "r1": value, "r2": value + seed % 2}
            for method, series in values.items()
            for seed, value in zip(seeds or range(len(series)), series, strict=True)
        ]
    )


METRICS = {"r1": "R@1", "r2": "R@2"}


def test_seeds_are_matched_by_value_and_not_by_place():
    runs = runs_table({"a": [3.0, 1.0, 2.5], "b": [2.0, 1.5, 2.0]})
    shuffled = runs.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        compare_pairs(runs, [("a", "b")], METRICS), compare_pairs(shuffled, [("a", "b")], METRICS)
    )


def test_missing_seeds_are_named():
    runs = runs_table({"a": [3.0, 1.0, 2.5], "b": [2.0, 1.5, 2.0]})
    runs = runs[~((runs["method"] == "b") & (runs["seed"] == 1))]
    with pytest.raises(ValueError, match=r"only one of them has \[1\]"):
        compare_pairs(runs, [("a", "b")], METRICS)


def test_unknown_methods_and_repeated_seeds_are_named():
    runs = runs_table({"a": [3.0, 1.0], "b": [2.0, 1.5]})
    with pytest.raises(ValueError, match="no run of 'c'; the methods are 'a', 'b'"):
        compare_pairs(runs, [("c", "b")], METRICS)
    with pytest.raises(ValueError, match="several runs of seed 0"):
        compare_pairs(pd.concat([runs, runs]), [("a", "b")], METRICS)


def test_holm_spans_the_whole_table_by_hand():
    rng = np.random.default_rng(0)
    values = {
        name: list(rng.normal(shift, 1, 12)) for name, shift in (("a", 1), ("b", 0), ("c", 0))
    }
    table = compare_pairs(runs_table(values), [("a", "c"), ("b", "c")], {"r1": "R@1"})
    small, large = sorted(table["p_value"])
    adjusted = [min(1, 2 * small), max(min(1, 2 * small), large)]
    assert sorted(table["p_adjusted"]) == pytest.approx(adjusted)


def test_the_interval_covers_at_its_nominal_rate():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        baseline = rng.normal(14, 1, 20)
        comparison = paired_comparison(baseline + rng.normal(0.4, 0.6, 20), baseline)
        covered += comparison.low < 0.4 < comparison.high
    # Binomial(2000, 0.95) has a standard deviation of 0.0049.
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_false_improvements_across_a_table_stay_below_five_percent():
    rng = np.random.default_rng(2)
    false, tables = 0, 300
    for _ in range(tables):
        shared = rng.normal(14, 1, 20)
        methods = {name: list(shared + rng.normal(0, 1.5, 20)) for name in "abcdef"}
        table = compare_pairs(
            runs_table(methods | {"fixed": list(shared)}),
            [(name, "fixed") for name in methods],
            {"r1": "R@1"},
        )
        false += table["verdict"].isin(["improves", "worsens"]).any()
    assert 0 < false / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5


def test_detectable_effect_is_found_with_its_power():
    effect = detectable_effect(deviation=1.3, seeds=20)
    rng = np.random.default_rng(3)
    found = np.mean(
        [
            paired_comparison(rng.normal(effect, 1.3, 20), np.zeros(20)).p_value < 0.05
            for _ in range(1500)
        ]
    )
    assert found == pytest.approx(0.8, abs=0.04)


def test_bootstrap_resamples_images_and_not_captions():
    """Five equal captions an image carry no more information than one."""
    rng = np.random.default_rng(4)
    per_image = (rng.random(400) < 0.3).astype(float)
    one = bootstrap_by_image(per_image, np.arange(400))
    five = bootstrap_by_image(np.repeat(per_image, 5), np.repeat(np.arange(400), 5))
    assert five == pytest.approx(one)
    error = per_image.std() / 400**0.5
    assert one[1] - one[0] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert one[0] < per_image.mean() < one[1]
