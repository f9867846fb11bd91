"""Verdicts on claims: the direction of a difference, combinations, and the sentence."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.chapters.main_comparison import against_rivals, power_table
from lib.chapters.shared.verdicts import (
    PAPER_METHOD,
    against,
    against_on_all,
    claim_rows,
    estimates,
    identical,
    judge,
    overall,
)
from lib.runs import TEST_COLUMNS
from lib.statistics import minimum_detectable_effect

CONDITIONS = {"corpus": "scenes", "train_images": 800, "margin": 0.3}


def runs(**shifts: tuple[float, float]) -> pd.DataFrame:
    """Methods whose recalls differ from ``fixed`` by a shift in each direction."""
    rng = np.random.default_rng(0)
    base = rng.normal(14, 1, 20)
    methods = {"fixed": (0.0, 0.0)} | {name.replace("_", " × "): s for name, s in shifts.items()}
    return pd.DataFrame(
        [
            {
                "method": method,
                "seed": seed,
                "i2t_r1": base[seed] + i2t + rng.normal(0, 0.1),
                "t2i_r1": base[seed] - 2 + t2i + rng.normal(0, 0.1),
            }
            for method, (i2t, t2i) in methods.items()
            for seed in range(20)
        ]
    )


def test_a_difference_is_method_minus_baseline():
    table = against(runs(variance_direction=(2.3, 1.5)), "fixed", 0.3)
    assert list(table["metric"]) == ["i2t R@1", "t2i R@1"]
    assert list(table["estimate"]) == pytest.approx([2.3, 1.5], abs=0.1)
    assert list(table["verdict"]) == ["improves", "improves"]


def test_against_rivals_is_the_papers_method_minus_the_rival():
    table = against_rivals(
        runs(
            variance_direction=(1.0, 1.0), entropy_direction=(0.0, 0.0), spread_direction=(2.0, 1.0)
        ),
        ["entropy × direction", "spread × direction"],
        0.3,
    )
    assert set(table["method"]) == {PAPER_METHOD}
    found = table.set_index(["baseline", "metric"])
    assert found.loc[("entropy × direction", "i2t R@1"), "estimate"] == pytest.approx(1, abs=0.1)
    assert found.loc[("entropy × direction", "i2t R@1"), "verdict"] == "improves"
    assert found.loc[("spread × direction", "i2t R@1"), "verdict"] == "worsens"
    assert found.loc[("spread × direction", "t2i R@1"), "verdict"] == "equivalent"
    assert (found["low"] < found["estimate"]).all()
    assert (found["estimate"] < found["high"]).all()


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ((2.0, 2.0), "improves"),
        ((2.0, 0.0), "improves"),
        ((-2.0, -2.0), "worsens"),
        ((-2.0, 0.0), "worsens"),
        ((0.0, 0.0), "equivalent"),
        ((0.1, -0.1), "equivalent"),
        ((2.0, -2.0), "undecided"),
    ],
)
def test_two_metrics_make_one_verdict(shifts, expected):
    assert overall(against(runs(variance_direction=shifts), "fixed", 0.3)) == expected


def test_beating_one_rival_of_two_is_not_beating_both():
    rivals = ["entropy × direction", "spread × direction"]
    one = runs(variance_direction=(2, 2), entropy_direction=(0, 0), spread_direction=(2, 2))
    both = runs(variance_direction=(2, 2), entropy_direction=(0, 0), spread_direction=(0, 0))
    assert overall(against_rivals(one, rivals, 0.3)) == "undecided"
    assert overall(against_rivals(both, rivals, 0.3)) == "improves"


def test_a_finding_says_what_was_measured():
    table = claim_rows(against(runs(variance_direction=(0.0, 0.0)), "fixed", 0.3))
    finding = judge(1, "main-comparison", table, **CONDITIONS)
    assert finding.verdict == "equivalent"
    assert [estimate.seeds for estimate in finding.estimates] == [20, 20]
    for words in (
        "no difference",
        "variance × direction against fixed",
        "800 training",
        "20 paired",
    ):
        assert words in finding.summary
    assert [estimate.estimate for estimate in finding.estimates] == list(table["estimate"])
    assert "is found with probability 0.8" in finding.summary
    assert {(e.margin, e.unit, e.lower_is_better) for e in finding.estimates} == {
        (0.3, "points", False)
    }


def test_the_rows_of_a_comparison_become_estimates():
    table = claim_rows(against(runs(variance_direction=(2.0, 0.0)), "fixed", 0.3))
    more = table.assign(
        unit="epochs", lower_is_better=[True, False], train_images=[100, 6000], condition="hot"
    )
    first, second = estimates(more)
    assert (first.estimate, first.low, first.high) == tuple(
        table.iloc[0][["estimate", "low", "high"]]
    )
    assert (first.metric, first.unit, first.lower_is_better) == ("i2t R@1", "epochs", True)
    assert (second.lower_is_better, second.train_images, second.margin) == (False, 6000, 0.3)
    wide = tuple(table.iloc[0][["wide_low", "wide_high"]])
    assert (first.wide_low, first.wide_high) == wide
    assert wide[0] < first.low < first.high < wide[1]
    assert [one.verdict for one in (first, second)] == list(table["verdict"])


def test_identical_methods_have_a_sentence_too():
    table = runs(variance_direction=(0.0, 0.0))
    same = table.assign(
        i2t_r1=table.groupby("seed")["i2t_r1"].transform("first"),
        t2i_r1=table.groupby("seed")["t2i_r1"].transform("first"),
    )
    finding = judge(1, "main-comparison", claim_rows(against(same, "fixed", 0.3)), **CONDITIONS)
    assert finding.verdict == "equivalent"
    assert [(e.low, e.high) for e in finding.estimates] == [(0, 0), (0, 0)]
    assert [e.identical for e in finding.estimates] == [20, 20]
    assert "probability" not in finding.summary
    assert (
        "variance × direction and fixed have the same i2t R@1 in all 20 runs, t2i R@1 in all 20 "
        "runs. " in finding.summary
    )


def test_many_identical_comparisons_are_summed_up():
    rows = [
        {"metric": f"m{same}", "method": "a", "baseline": "b", "identical": same, "seeds": 20}
        for same in (20, 11, 15, 10)
    ]
    assert identical(pd.DataFrame(rows)) == (
        "a and b have the same value in 11 to 20 of 20 runs in 3 of 4 comparisons. "
    )


def test_power_is_told_of_what_moves():
    """One direction differs at two seeds of twenty: its spread is no treatment's."""
    table = runs(variance_direction=(0.0, 0.0))
    first = table.groupby("seed")["t2i_r1"].transform("first")
    table["t2i_r1"] = first + 0.1 * ((table["method"] != "fixed") & (table["seed"] < 2))
    compared = against(table, "fixed", 0.3)
    finding = judge(1, "main-comparison", claim_rows(compared), **CONDITIONS)
    assert "have the same t2i R@1 in 18 of 20 runs. " in finding.summary
    deviation = compared["deviation"][0]
    effect = minimum_detectable_effect(deviation, 20, alpha=0.001)
    assert f"A true difference of {effect:.2f} points is found" in finding.summary
    assert power_table(compared, {"i2t R@1": 2.3})["metric"].tolist() == ["i2t R@1"]


def test_a_claim_about_a_method_that_was_not_run_is_refused():
    table = against(runs(entropy_direction=(0.0, 0.0)), "fixed", 0.3)
    with pytest.raises(ValueError, match="'variance × direction', which is not among"):
        claim_rows(table)


def test_power_is_that_of_the_noncentral_t_at_the_level_of_the_verdicts():
    table = pd.DataFrame(
        {"method": ["a", "b"], "metric": ["i2t R@1", "t2i R@1"], "deviation": [1.0, 0.5],
         "seeds": [20, 20], "identical": [0, 10]}
    )  # fmt: skip
    found = power_table(table, {"i2t R@1": 1.0, "t2i R@1": 0.5})
    limit = stats.t.ppf(1 - 0.0005, 19)

    def power(effect):
        shift = effect * 20**0.5
        return stats.nct.sf(limit, 19, shift) + stats.nct.cdf(-limit, 19, shift)

    effects = found["found with probability 0.8"]
    assert power(effects[0]) == pytest.approx(0.8, abs=1e-3)
    assert effects[1] == pytest.approx(effects[0] / 2)
    chances = found["is found with probability"].tolist()
    assert chances == pytest.approx([power(1.0)] * 2, abs=1e-3)


def test_each_metric_is_a_family_and_a_lower_rank_is_better():
    runs = pd.DataFrame(
        [
            {"method": method, "seed": seed}
            | dict.fromkeys(TEST_COLUMNS, 20.0 + seed + (0.01 * seed + 2) * (method == "a"))
            for method in ("fixed", "a")
            for seed in range(6)
        ]
    )
    table = against_on_all(runs, "fixed", 0.3).set_index("metric")
    assert list(table.index) == list(TEST_COLUMNS)
    assert table.loc["i2t_r5", "verdict"] == "improves"
    assert table.loc["i2t_median_rank", "verdict"] == "worsens"
    assert table["p_adjusted"].nunique() == 1
