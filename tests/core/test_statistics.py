"""Comparisons over seeds: worked values, scipy and simulation as oracles."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lib.statistics import (
    PairedComparison,
    StatisticsError,
    Verdict,
    bayes_factor,
    bootstrap_by_image,
    compare_methods,
    compare_pairs,
    comparison_table,
    minimum_detectable_effect,
    paired_comparison,
    power,
)


def by_seed(values, first=0):
    return dict(enumerate(values, first))


def tidy(methods, metric="R@1"):
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, metric: value}
            for method, values in methods.items()
            for seed, value in enumerate(values)
        ]
    )


def test_worked_example():
    """Differences 1, 2, 3: mean 2, standard deviation 1, t(2; 0.975) = 4.3027, so ± 2.4841."""
    compared = paired_comparison(by_seed([11.0, 12, 13]), by_seed([10.0, 10, 10]))
    assert compared.estimate == 2
    assert compared.standard_deviation == 1
    assert (compared.low, compared.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert compared.p == pytest.approx(0.0742, abs=1e-4)
    assert compared.seeds == 3


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_equals_the_one_sample_interval_of_the_differences(pairs):
    a, b = np.array(pairs).T
    if np.ptp(a - b) < 1e-6:
        return
    compared = paired_comparison(by_seed(a), by_seed(b))
    error = stats.sem(a - b)
    low, high = stats.t.interval(0.95, len(a) - 1, loc=(a - b).mean(), scale=error)
    assert (compared.low, compared.high) == pytest.approx((low, high), abs=1e-7)
    p = 2 * stats.t.sf(abs((a - b).mean() / error), len(a) - 1)
    assert compared.p == pytest.approx(p, abs=1e-9)
    exchanged = paired_comparison(by_seed(b), by_seed(a))
    assert exchanged.estimate == pytest.approx(-compared.estimate)
    assert (exchanged.low, exchanged.high) == pytest.approx((-compared.high, -compared.low))


def test_seeds_are_matched_by_value_not_by_position():
    baseline = pd.Series([3.0, 1.0, 2.0], index=[7, 5, 6])
    treatment = {5: 2.0, 6: 4.0, 7: 3.5}
    compared = paired_comparison(treatment, baseline)
    assert compared.estimate == pytest.approx((1 + 2 + 0.5) / 3)


@pytest.mark.parametrize(
    ("treatment", "baseline", "message"),
    [
        ({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0}, r"treatment lacks seeds \[2\]; baseline lacks.*\[1\]"),
        ({0: 1.0, 1: 2.0}, {0: 1.0}, r"^the seeds don't match: baseline lacks seeds \[1\]\."),
        ({2: 1.0}, {0: 1.0, 2: 2.0}, r"^the seeds don't match: treatment lacks seeds \[0\]\."),
        ({0: 1.0}, {0: 2.0}, "One seed decides nothing"),
        ({}, {}, "two seeds or more, but there is 0"),
        ({0: 1, 1: np.nan}, {0: 1, 1: 2}, r"treatment is not finite for seeds \{1: nan"),
        ({0: 1.0, 1: 1.0}, {0: np.inf, 1: 2.0}, r"baseline is not finite for seeds \{0: inf"),
        ([1.0, 2.0], {0: 1.0, 1: 2.0}, "treatment must map seeds to values"),
        ({0: "good", 1: 1.0}, {0: 1.0, 1: 2.0}, "not a number: .*good"),
        (pd.Series([1.0, 2.0], index=[3, 3]), {3: 1.0}, r"seeds \[3\] more than once"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(treatment, baseline, message):
    with pytest.raises(StatisticsError, match=message):
        paired_comparison(treatment, baseline)


def test_no_difference_at_all():
    compared = paired_comparison(by_seed([1.0, 2, 3]), by_seed([1.0, 2, 3]))
    assert (compared.estimate, compared.low, compared.high, compared.p) == (0, 0, 0, 1)


def test_the_same_difference_at_every_seed():
    """Rounding makes 0.3 − 0.2 differ from 0.2 − 0.1: no reason for a t of 10^15."""
    compared = paired_comparison(by_seed([0.2, 0.3, 0.4]), by_seed([0.1, 0.2, 0.3]))
    assert compared.low == compared.high == compared.estimate == pytest.approx(0.1)
    assert compared.p == 0.25  # All three signs alike: 2 of 8 ways.


@pytest.mark.parametrize("confidence", [0, 1, 95])
@pytest.mark.parametrize("interval", [paired_comparison, bootstrap_by_image])
def test_a_confidence_is_a_share(interval, confidence):
    a, b = ([0.0, 1.0], [0, 1]) if interval is bootstrap_by_image else ({0: 1, 1: 2}, {0: 1, 1: 3})
    with pytest.raises(StatisticsError, match=f"between 0 and 1, such as 0.95, not {confidence}$"):
        interval(a, b, confidence=confidence)


BASE = np.array([10.0, 11.0, 12.0, 13.0, 14.0])
NOISE = np.array([-0.1, 0.1, 0.0, 0.05, -0.05])


@pytest.mark.parametrize(
    ("shift", "wobble", "verdict"),
    [
        (2.0, 1.0, Verdict.IMPROVES),
        (-2.0, 1.0, Verdict.WORSENS),
        (0.0, 1.0, Verdict.EQUIVALENT),
        (0.15, 1.0, Verdict.EQUIVALENT),  # Significant, and too small to matter.
        (0.0, 20.0, Verdict.UNDECIDED),
        (0.3, 1.0, Verdict.IMPROVES),  # The interval crosses the margin.
    ],
)
def test_verdicts(shift, wobble, verdict):
    table = tidy({"fixed": BASE, "new": BASE + shift + wobble * NOISE})
    (comparison,) = compare_methods(table, "fixed", ["R@1"])
    assert comparison.verdict is verdict
    assert (comparison.method, comparison.baseline, comparison.metric) == ("new", "fixed", "R@1")
    assert comparison.paired.seeds == 5
    if shift == 0.15:
        assert comparison.p_adjusted < 0.05


def test_a_rank_improves_by_falling():
    table = tidy({"fixed": BASE, "new": BASE - 2 + NOISE}, "rank")
    margin = {"rank": 0.5}
    (falls,) = compare_methods(table, "fixed", ["rank"], margin=margin, lower_is_better=["rank"])
    assert falls.verdict is Verdict.IMPROVES
    assert falls.paired.estimate == pytest.approx(-2)
    (rises,) = compare_methods(table, "fixed", ["rank"], margin=margin)
    assert rises.verdict is Verdict.WORSENS


@pytest.mark.parametrize("family", [None, 4, 50])
def test_each_comparison_is_judged_as_one_of_its_family(family):
    draw = np.random.default_rng(0)
    table = pd.concat(
        [
            pd.DataFrame({"method": m, "seed": range(8), **{c: draw.normal(s, 1, 8) for c in "xy"}})
            for m, s in (("fixed", 0.0), ("a", 1.0), ("b", 2.0))
        ]
    )
    compared = compare_methods(table, "fixed", ["x", "y"], family=family)
    cells = [(c.method, c.metric) for c in compared]
    assert cells == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    values = {m: g.set_index("seed") for m, g in table.groupby("method")}
    for c in compared:
        assert c.family == (family or 4)
        assert c.p_adjusted == pytest.approx(min(1, c.family * c.paired.p))
        pair = values[c.method][c.metric], values["fixed"][c.metric]
        wide = paired_comparison(*pair, 1 - 0.05 / c.family)
        assert (c.adjusted.low, c.adjusted.high) == pytest.approx((wide.low, wide.high))
        # The test and the interval agree.
        assert (c.p_adjusted < 0.05) == (c.adjusted.low > 0 or c.adjusted.high < 0)


def test_the_verdict_does_not_depend_on_what_is_compared_beside():
    table = tidy({"fixed": BASE, "new": BASE + 1 + NOISE, "other": BASE + 3 * NOISE})
    both = compare_methods(table, "fixed", ["R@1"], family=50)
    alone = compare_methods(table[table["method"] != "other"], "fixed", ["R@1"], family=50)
    assert alone == both[:1]


def test_more_comparisons_than_the_family_holds_are_refused():
    table = tidy({"fixed": BASE, "new": BASE + 1, "other": BASE + 2})
    with pytest.raises(StatisticsError, match=r"family = 1, but there are 2 comparisons here"):
        compare_methods(table, "fixed", ["R@1"], family=1)


@pytest.mark.parametrize(("family", "verdict"), [(1, "equivalent"), (50, "undecided")])
def test_equivalence_is_as_hard_as_a_difference(family, verdict):
    """±0.1 over 6 seeds: sd 0.1095, so t · 0.0447 is 0.115 at 95 % and 0.307 at 99.9 %."""
    wobble = np.array([0.1, -0.1] * 3)
    table = tidy({"fixed": np.arange(6.0), "new": np.arange(6.0) + wobble})
    (found,) = compare_methods(table, "fixed", ["R@1"], margin=0.3, family=family)
    assert found.verdict == verdict
    half = {1: 0.1150, 50: 0.3071}[family]
    assert found.adjusted.high == pytest.approx(half, abs=1e-4)


def test_seeds_without_a_difference_are_counted():
    ours = {0: 1.0, 1: 2.0, 2: 3.0, 3: 0.0}
    assert paired_comparison(ours, ours).identical == 4
    assert paired_comparison(ours, {**ours, 3: 0.5}).identical == 3
    assert paired_comparison(ours, {k: v + 1 for k, v in ours.items()}).identical == 0
    assert paired_comparison({**ours, 0: 1 + 1e-13}, ours).identical == 4


@pytest.mark.parametrize("seeds", [3, 8, 20, 100])
@pytest.mark.parametrize("t", [0.0, 0.7, -2.5, 6.0])
@pytest.mark.parametrize("scale", [0.5**0.5, 1.0])
def test_the_bayes_factor_is_the_ratio_of_the_likelihoods(seeds, t, scale):
    """By Cauchy-distributed effects δ: the likelihood of t is a noncentral t's with δ · √seeds."""
    compared = PairedComparison(t / seeds**0.5, 0, 0, 0.95, 0.5, 1.0, seeds)

    def weighted(angle):
        delta = scale * np.tan(angle)
        return stats.nct.pdf(t, seeds - 1, delta * seeds**0.5) / np.pi

    grid = np.linspace(-np.pi / 2, np.pi / 2, 20_001)[1:-1]
    values = np.nan_to_num([weighted(angle) for angle in grid[::20]])
    expected = np.trapezoid(values, grid[::20]) / stats.t.pdf(t, seeds - 1)
    assert bayes_factor(compared, scale) == pytest.approx(expected, rel=0.01)


def test_bayes_factors_of_differences_that_do_not_vary():
    same = paired_comparison({0: 1.0, 1: 2.0, 2: 5.0}, {0: 1.0, 1: 2.0, 2: 5.0})
    assert 0 < bayes_factor(same) < 1
    assert bayes_factor(paired_comparison({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0})) == np.inf
    with pytest.raises(StatisticsError, match="scale must be positive"):
        bayes_factor(same, 0)


@pytest.mark.parametrize("seeds", [2, 5, 20, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_power_is_what_simulation_finds(seeds, alpha):
    draw, trials = np.random.default_rng(seeds), 40_000
    for effect in (0.0, 0.3, 1.0):
        sample = draw.normal(effect, 1.0, (trials, seeds))
        p = stats.ttest_1samp(sample, 0, axis=1).pvalue
        assert power(effect, 1.0, seeds, alpha) == pytest.approx((p < alpha).mean(), abs=0.01)


def test_power_has_the_scale_of_the_differences():
    assert power(0.66, 1.0, 20) == pytest.approx(power(-66, 100.0, 20))
    found = minimum_detectable_effect(0.87, 100, 0.9, 0.001)
    assert power(found, 0.87, 100, 0.001) == pytest.approx(0.9)
    assert (power(0.0, 0.0, 5), power(0.1, 0.0, 5)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.nan, 1.0, 5), "effect must be finite"),
        ((1.0, -1.0, 5), "standard_deviation must be finite and not negative"),
        ((1.0, 1.0, 1), "two seeds or more"),
        ((1.0, 1.0, 5, 1.0), "alpha between 0 and 1"),
        (("1", 1.0, 5), "effect must be a number"),
    ],
)
def test_power_out_of_range_is_named(arguments, message):
    with pytest.raises(StatisticsError, match=message):
        power(*arguments)


def test_rows_may_come_in_any_order():
    table = tidy({"fixed": BASE, "new": BASE + 1 + NOISE, "other": BASE + 3 * NOISE})
    shuffled = table.sample(frac=1, random_state=0)
    key = {c.method: c for c in compare_methods(table, "fixed", ["R@1"])}
    assert {c.method: c for c in compare_methods(shuffled, "fixed", ["R@1"])} == key


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"metrics": ["R@5"]}, r"lacks columns \['R@5'\]"),
        ({}, {"metrics": "R@1"}, "list of distinct columns"),
        ({}, {"metrics": []}, "list of distinct columns"),
        ({}, {"margin": 0}, "margin of 'R@1' must be a positive number"),
        ({}, {"margin": {"R@5": 1}}, "margin of 'R@1'"),
        ({}, {"alpha": 5}, "alpha must be between 0 and 1"),
        ({}, {"lower_is_better": ["rank"]}, r"names \['rank'\]"),
        ({"seed": 9}, {}, "R@1 of 'new'.*seeds don't match"),
        ({"seed": 0}, {}, "R@1 of 'new'.*more than once"),
        ({"R@1": float("nan")}, {}, r"R@1 of 'new'.*not finite for seeds \{4"),
        ({"method": "new2"}, {}, "treatment lacks seeds"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused_by_name(change, arguments, message):
    table = tidy({"fixed": BASE, "new": BASE + NOISE})
    for column, value in change.items():
        table.loc[9, column] = value
    with pytest.raises(StatisticsError, match=message):
        compare_methods(table, **{"baseline": "fixed", "metrics": ["R@1"], **arguments})


@pytest.mark.parametrize(
    ("method", "baseline", "arguments", "said"),
    [
        ("nwe", "fixed", {}, "methods ['nwe'] are not in the table, which has ['fixed', 'new']"),
        (
            *("new", "fxied", {}),
            "the baseline 'fxied' is not in the table, which has ['fixed', 'new']",
        ),
        ("new", "fixed", {"alpha": 0}, "alpha must be between 0 and 1, such as 0.05, not 0"),
        ("new", "fixed", {"alpha": 1}, "alpha must be between 0 and 1, such as 0.05, not 1"),
        (
            *("new", "fixed", {"margin": {"R@1": 1, "R@9": 1}}),
            "margin or lower_is_better names ['R@9'], which are no metrics",
        ),
        (
            *("new", "fixed", {"margin": -1}),
            "the margin of 'R@1' must be a positive number, not -1",
        ),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused_in_words(method, baseline, arguments, said):
    table = tidy({"fixed": BASE, "new": BASE + NOISE})
    with pytest.raises(StatisticsError, match=f"^{re.escape(said)}$"):
        compare_pairs(table, [(method, baseline)], ["R@1"], **arguments)


def test_a_table_needs_its_columns_its_baseline_and_a_method():
    with pytest.raises(
        StatisticsError, match=r"^the table lacks columns \['method', 'seed', 'R@1'\]"
    ):
        compare_methods(pd.DataFrame({"x": [1]}), "fixed", ["R@1"])
    with pytest.raises(StatisticsError, match="baseline 'fxied' is not in the table, which has"):
        compare_methods(tidy({"fixed": BASE, "new": BASE}), "fxied", ["R@1"])
    with pytest.raises(StatisticsError, match="no method to compare"):
        compare_methods(tidy({"fixed": BASE}), "fixed", ["R@1"])


@pytest.mark.parametrize(
    ("deviation", "seeds", "options"),
    [(2.0, 10, ()), (3.0, 6, (0.6, 0.01)), (3.0, 6, (0.95, 0.2))],
)
def test_detectable_effect_has_the_power_it_promises(deviation, seeds, options):
    power, alpha = options or (0.8, 0.05)
    effect = minimum_detectable_effect(deviation, seeds, *options)
    # The power of a t-test, from the noncentral t distribution.
    critical = stats.t.ppf(1 - alpha / 2, seeds - 1)
    of_t = stats.nct(seeds - 1, effect / deviation * seeds**0.5)
    assert of_t.sf(critical) + of_t.cdf(-critical) == pytest.approx(power, abs=1e-4)


def test_detectable_effect_shrinks_with_the_seeds_and_the_deviation():
    effect = minimum_detectable_effect(2.0, 10)
    assert minimum_detectable_effect(2.0, 40) < effect / 1.9
    assert minimum_detectable_effect(0.0, 10) == 0
    assert minimum_detectable_effect(1.0, 2) > minimum_detectable_effect(1.0, 3)


@pytest.mark.parametrize(("seeds", "alpha"), [(2, 0.05 / 6), (3, 0.05 / 26), (4, 1e-4), (20, 1e-6)])
def test_detectable_effect_of_few_seeds_and_small_levels_is_what_a_simulation_finds(seeds, alpha):
    """A t statistic from its definition: a normal mean over an independent deviation."""
    effect = minimum_detectable_effect(1.0, seeds, alpha=alpha)
    draw, size = np.random.default_rng(seeds), 200_000
    deviation = np.sqrt(draw.chisquare(seeds - 1, size) / (seeds - 1))
    t = (effect * np.sqrt(seeds) + draw.standard_normal(size)) / deviation
    found = np.mean(np.abs(t) > stats.t.isf(alpha / 2, seeds - 1))
    assert found == pytest.approx(0.8, abs=0.004)


def test_more_comparisons_need_larger_effects_however_few_the_seeds():
    for seeds in (2, 3, 20):
        levels = [0.05 / comparisons for comparisons in (1, 4, 26, 56, 10**4, 10**8)]
        effects = [minimum_detectable_effect(1.0, seeds, alpha=alpha) for alpha in levels]
        assert effects == sorted(set(effects))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((-1.0, 9), "standard_deviation must be finite and not negative, not -1.0"),
        ((np.nan, 9), "standard_deviation must be finite and not negative, not nan"),
        ((1.0, 1), "a comparison needs two seeds or more, not 1"),
        ((1.0, 9, 0.01), "alpha < power {} 0.05 and 0.01"),
        ((1.0, 9, 0.5, 0.5), "alpha < power {} 0.5 and 0.5"),
        ((1.0, 9, 1.0), "alpha < power {} 0.05 and 1.0"),
        ((1.0, 9, 0.5, 0.0), "alpha < power {} 0.0 and 0.5"),
    ],
)
def test_impossible_designs_are_refused_in_words(arguments, said):
    said = said.format("must both be between 0 and 1, but they are")
    with pytest.raises(StatisticsError, match=f"^{re.escape(said)}$"):
        minimum_detectable_effect(*arguments)


def clustered(draw, images=40):
    """Five captions per image that all hit or all miss: evidence of 40 images, not of 200."""
    return np.repeat(draw.random(images) < 0.4, 5).astype(float), np.repeat(np.arange(images), 5)


def test_bootstrap_covers_where_captions_of_an_image_agree():
    draw = np.random.default_rng(2)
    runs = [clustered(draw) for _ in range(300)]
    ours = [bootstrap_by_image(*run, resamples=300) for run in runs]
    naive = [bootstrap_by_image(run[0], np.arange(200), resamples=300) for run in runs[:100]]
    covered = np.mean([i.low <= 0.4 <= i.high for i in ours])
    assert 0.89 < covered < 0.99
    assert np.mean([i.low <= 0.4 <= i.high for i in naive]) < 0.75


def test_bootstrap_is_reproducible_and_ignores_order_within_images():
    image = np.repeat(np.arange(40), 5)
    hits = np.random.default_rng(3).random(200)
    one = bootstrap_by_image(hits, image)
    assert one == bootstrap_by_image(hits, image)
    turned = bootstrap_by_image(hits[::-1], image[::-1])
    assert (turned.low, turned.high) == pytest.approx((one.low, one.high))
    assert one != bootstrap_by_image(hits, image, seed=1)
    assert one.low < one.estimate < one.high
    assert one.estimate == pytest.approx(hits.mean())


def test_bootstrap_weighs_ragged_images_by_their_queries():
    interval = bootstrap_by_image([1.0, 0.0, 0.0, 0.0, 0.5], [0, 1, 1, 1, 2])
    assert interval.estimate == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("values", "image"),
    [
        (np.ones(10), np.arange(10) // 2),
        # Images of one mean, whatever their number of captions.
        ([1.0, 0.5, 1.5, 1.0, 1.0, 1.0], [0, 1, 1, 2, 2, 2]),
    ],
)
def test_bootstrap_of_images_that_all_score_the_same_is_a_point(values, image):
    interval = bootstrap_by_image(values, image)
    assert (interval.low, interval.estimate, interval.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "image", "said"),
    [
        ([1.0, 0.0], [0], "per_query and image must be (Q,) both, but they are (2,) and (1,)"),
        (
            *([[1.0], [0.0]], [[0], [1]]),
            "per_query and image must be (Q,) both, but they are (2, 1) and (2, 1)",
        ),
        ([1.0, np.nan, np.inf], [0, 1, 2], "per_query[1] is nan; every value must be finite"),
        ([1.0, 0.0], [3, 3], "two images or more, but there is 1"),
    ],
)
def test_what_cannot_be_bootstrapped_is_refused(values, image, said):
    with pytest.raises(StatisticsError, match=re.escape(said)):
        bootstrap_by_image(values, image)


def test_the_confidence_is_that_of_the_interval_and_is_kept():
    ours, theirs = [11.0, 12, 14, 13], [10.0, 10, 10, 12]
    for confidence in (0.5, 0.99):
        compared = paired_comparison(by_seed(ours), by_seed(theirs), confidence)
        difference = np.subtract(ours, theirs)
        low, high = stats.t.interval(confidence, 3, difference.mean(), stats.sem(difference))
        assert (compared.low, compared.high) == pytest.approx((low, high))
        assert compared.standard_deviation == pytest.approx(difference.std(ddof=1))
        assert compared.confidence == confidence
    point = paired_comparison(by_seed([2.0, 3]), by_seed([1.0, 2]), 0.5)
    assert (point.confidence, point.standard_deviation, point.seeds) == (0.5, 0, 2)
    assert point.p == 0.5


@pytest.mark.parametrize(("scale", "same"), [(1e-13, True), (1e-9, False)])
def test_differences_are_the_same_up_to_the_rounding_of_their_values(scale, same):
    ours, theirs = [1000.0, -500.0 + 1000 * scale, 3.0], [999.0, -501.0, 2.0]
    compared = paired_comparison(by_seed(ours), by_seed(theirs))
    assert (compared.standard_deviation == 0) is same
    assert compared.estimate == pytest.approx(1)
    nothing = paired_comparison(by_seed(ours), by_seed([x + 1e-13 * abs(x) for x in ours]))
    assert (nothing.estimate, nothing.p) == (0, 1)


def test_pairs_are_compared_as_given_in_one_family():
    draw = np.random.default_rng(4)
    table = pd.concat(
        pd.DataFrame({"method": m, "seed": range(6), **{c: draw.normal(s, 1, 6) for c in "xy"}})
        for m, s in (("a", 0.0), ("b", 1.0), ("c", 3.0))
    )
    pairs = [("c", "b"), ("a", "c")]
    compared = compare_pairs(
        table, pairs, ["y", "x"], margin={"x": 0.1, "y": 0.2}, alpha=0.1, lower_is_better=["x"]
    )
    assert [(c.method, c.baseline, c.metric, c.margin) for c in compared] == [
        ("c", "b", "y", 0.2), ("c", "b", "x", 0.1), ("a", "c", "y", 0.2), ("a", "c", "x", 0.1),
    ]  # fmt: skip
    values = {m: g.set_index("seed") for m, g in table.groupby("method")}
    for c in compared:
        alone = paired_comparison(values[c.method][c.metric], values[c.baseline][c.metric], 0.9)
        assert c.paired == alone
        better = (c.paired.estimate > 0) != (c.metric == "x")
        if c.p_adjusted < 0.1:
            assert c.verdict is (Verdict.IMPROVES if better else Verdict.WORSENS)
        else:
            assert c.verdict is Verdict.UNDECIDED
    assert len({c.verdict for c in compared}) > 1
    assert [c.p_adjusted for c in compared] == pytest.approx(
        [min(1, 4 * c.paired.p) for c in compared]
    )


def test_pairs_are_compared_within_each_setting_in_one_family():
    """As if each setting were a table of its own, but for the family, which spans them."""
    values = {
        ("few", "a"): [1.0, 2.0, 4.0], ("few", "b"): [1.5, 3.5, 4.5],
        ("many", "a"): [9.0, 8.0, 7.0], ("many", "b"): [9.5, 9.0, 7.9],
        ("alone", "a"): [0.0, 1.0, 2.0],
    }  # fmt: skip
    table = pd.concat([tidy({key[1]: v}).assign(size=key[0]) for key, v in values.items()])
    table = table.reset_index(drop=True)
    compared = compare_pairs(table, [("b", "a")], ["R@1"], within="size")
    assert [one.setting for one in compared] == ["few", "many"]
    for one in compared:
        (apart,) = compare_pairs(table[table["size"] == one.setting], [("b", "a")], ["R@1"])
        assert one.paired == apart.paired
        assert one.p_adjusted == pytest.approx(min(1, 2 * apart.paired.p))
    assert comparison_table(compared, within="size")["size"].tolist() == ["few", "many"]
    methods = compare_methods(table, "a", ["R@1"], within="size")
    assert methods == compared
    uneven = table.drop(index=0)
    with pytest.raises(StatisticsError, match=r"R@1 of 'b' .* at size few: the seeds don't match"):
        compare_pairs(uneven, [("b", "a")], ["R@1"], within="size")
    apart = table[table["size"] == "alone"].assign(size="other", method="b")
    table = pd.concat([table[table["size"] == "alone"], apart])
    with pytest.raises(StatisticsError, match=r"no pair of .* was run at the same size"):
        compare_pairs(table, [("b", "a")], ["R@1"], within="size")


def test_the_verdict_at_its_bounds():
    """The interval must lie inside the margin, and the p-value below alpha: at neither."""
    table = tidy({"fixed": [0.0, 0.0], "new": [0.25, 0.25]})
    (touching,) = compare_methods(table, "fixed", ["R@1"], margin=0.25)
    assert touching.verdict is Verdict.UNDECIDED
    table["R@1"] *= -1
    (touching,) = compare_methods(table, "fixed", ["R@1"], margin=0.25)
    assert touching.verdict is Verdict.UNDECIDED
    (inside,) = compare_methods(table, "fixed", ["R@1"], margin=0.2500001)
    assert inside.verdict is Verdict.EQUIVALENT
    assert inside.p_adjusted == 0.5
    (at_alpha,) = compare_methods(table, "fixed", ["R@1"], margin=0.1, alpha=0.5)
    assert at_alpha.verdict is Verdict.UNDECIDED
    (above,) = compare_methods(table, "fixed", ["R@1"], margin=0.1, alpha=0.51)
    assert above.verdict is Verdict.WORSENS


def test_a_comparison_becomes_a_row():
    table = tidy({"fixed": BASE, "new": BASE + 1 + NOISE})
    compared = compare_methods(table, "fixed", ["R@1"])
    paired, p = compared[0].paired, compared[0].p_adjusted
    row = {
        "method": "new", "baseline": "fixed", "metric": "R@1", "estimate": paired.estimate,
        "low": paired.low, "high": paired.high, "wide_low": paired.low, "wide_high": paired.high,
        "deviation": paired.standard_deviation, "seeds": 5, "identical": 0, "p": paired.p,
        "p_adjusted": p, "bayes_factor": bayes_factor(paired), "family": 1, "margin": 0.3,
        "lower_is_better": False,
        "verdict": "improves",
    }  # fmt: skip
    assert comparison_table(compared).to_dict("records") == [row]
    named = comparison_table(compared, {"R@1": "recall"}).to_dict("records")
    assert named == [{**row, "metric": "recall"}]
    assert comparison_table(compared, {"R@5": "recall"}).to_dict("records") == [row]


@pytest.mark.parametrize(("confidence", "resamples", "seed"), [(0.9, 400, 3), (0.5, 150, 0)])
def test_the_bootstrap_is_that_of_scipy_on_images(confidence, resamples, seed):
    """Their sums and counts, drawn in pairs; the oracle gets the ratio in another form."""
    draw = np.random.default_rng(5)
    image = np.sort(draw.integers(0, 15, 60))
    values = draw.random(60)
    found = bootstrap_by_image(
        values, image + 7, confidence=confidence, resamples=resamples, seed=seed
    )
    groups = [values[image == one] for one in np.unique(image)]
    expected = stats.bootstrap(
        (np.array([g.sum() for g in groups]), np.array([len(g) for g in groups], float)),
        lambda total, count, axis: total.mean(axis=axis) / count.mean(axis=axis),
        paired=True, n_resamples=resamples, confidence_level=confidence, method="BCa",
        random_state=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.confidence == confidence
    assert found.estimate == pytest.approx(values.mean())
    assert bootstrap_by_image([1.0, 1.0], [0, 1], confidence=0.5).confidence == 0.5


def test_the_margin_is_three_tenths_unless_told_otherwise():
    table = tidy({"a": [10.5, 10.52, 10.48, 10.51], "b": [10.0, 10, 10, 10]})
    (compared,) = compare_pairs(table, [("a", "b")], ["R@1"])
    assert compared.margin == 0.3
    assert compared.verdict is Verdict.IMPROVES
