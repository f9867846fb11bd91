"""Speed of convergence: times worked by hand, censoring, Kaplan-Meier elsewhere, two families."""

import json

import numpy as np
import pandas as pd
import pytest
from drawing import draw, rows_of
from finished import traced
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from statsmodels.duration.survfunc import SurvfuncRight

from lib.chapters.convergence.figures import convergence_curves, speed_differences, speed_rows
from lib.chapters.convergence.speed import (
    OWN_BEST,
    PRIMARY_SHARES,
    SHARES,
    compare_speed,
    curve_table,
    epochs_to,
    mean_height,
    reached_table,
    share_reached,
    speed_finding,
    speed_summary,
    speed_table,
)
from lib.chapters.shared.verdicts import PAPER_METHOD
from lib.runs import RunConfig, ScheduleConfig
from lib.statistics import StatisticsError, minimum_detectable_effect

STEPS_PER_EPOCH = 7
PAPER_SCHEDULER = ScheduleConfig(signal="variance", actuator="direction")


def run(seed, rsum, schedule=None):
    """A run whose validation rSum is given."""
    config = RunConfig(seed=seed, schedule=schedule)
    return traced(config, rsum, loss=np.zeros(STEPS_PER_EPOCH * len(rsum)))


def replicated(**curves):
    """Runs by method, from each method's curves; ``variance`` stands for the paper's method."""
    return {
        (PAPER_METHOD if method == "variance" else method): [
            run(seed, curve, PAPER_SCHEDULER if method == "variance" else None)
            for seed, curve in enumerate(of_method)
        ]
        for method, of_method in curves.items()
    }


def rising(delay=0.0, height=200.0, rate=0.4, epochs=15):
    """A curve that rises to ``height``, the same one ``delay`` epochs later."""
    time = np.clip(np.arange(1, epochs + 1) - delay, 0, None)
    return height * (1 - np.exp(-rate * time))


def delayed(delays, jitter=0.02, epochs=15):
    """The same seeds for every method, each with its own height and a slightly varied delay."""
    draw = np.random.default_rng(0)
    heights = draw.normal(190, 5, 20)

    def curves(delay):
        return [rising(delay + draw.normal(0, jitter), height, epochs=epochs) for height in heights]

    return replicated(**{method: curves(delay) for method, delay in delays.items()})


def finding_of(speeds):
    compared = compare_speed(speeds, 0.25)
    return speed_finding(
        "convergence", speeds, compared, corpus="scenes", train_images=800, margin=0.25
    )


@pytest.mark.parametrize(
    ("curve", "level", "epochs"),
    [
        ([10, 20, 40], 20, 2),  # Exactly at an evaluation.
        ([10, 20, 40], 35, 2.75),  # Three quarters of the way from 20 to 40.
        ([10, 20, 40], 10, 1),
        ([10, 20, 40], 3, 1),  # There before the first evaluation, which is the earliest seen.
        ([10, 20, 40], 41, np.inf),
        ([10, 30, 20, 40], 25, 1.75),  # The first time, though the curve falls below it again.
        ([50, 40, 30], 45, 1),
        ([10, 10, 10], 11, np.inf),
        ([7], 7, 1),
    ],
)
def test_time_to_a_level_by_hand(curve, level, epochs):
    assert epochs_to(curve, level) == epochs


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(0, 101))
def test_time_to_a_level_is_where_a_fine_walk_along_the_lines_first_meets_it(curve, level):
    fine = np.linspace(1, len(curve), 1000 * (len(curve) - 1) + 1)
    walk = np.interp(fine, np.arange(1, len(curve) + 1), curve)
    met = fine[walk >= level - 1e-9]
    time = epochs_to(curve, level)
    if met.size == 0:
        assert time == np.inf
    else:
        assert time == pytest.approx(met[0], abs=1.1e-3)
        # The evaluation at which a whole count of epochs would see it first.
        assert np.ceil(time) == next(k for k, value in enumerate(curve, 1) if value >= level)


def test_mean_height_by_hand():
    """Trapezoids of 15, 30 and 30 over three epochs."""
    assert mean_height([10, 20, 40, 20]) == 25
    assert mean_height([10]) == 10
    assert mean_height([12, 12, 12]) == 12


def test_each_seeds_target_is_its_own_baselines_best():
    """Best of fixed 100 at seed 0 and 200 at seed 1; a curve of 95 is there at seed 0 alone."""
    speeds = speed_table(
        replicated(fixed=[[50, 100, 90], [100, 200, 180]], variance=[[50, 90, 95], [50, 90, 95]])
    )
    at_95 = speeds[speeds["share"] == 0.95].set_index(["method", "seed"])
    assert at_95.loc["fixed", "epochs"].tolist() == [1.9, 1.9]
    assert at_95.loc[PAPER_METHOD, "epochs"].tolist() == [3.0, 3.0]
    assert at_95.loc[PAPER_METHOD, "reached"].tolist() == [True, False]
    assert at_95.loc["fixed", "whole"].tolist() == [2, 2]
    assert at_95.loc["fixed", "steps"].tolist() == pytest.approx([1.9 * STEPS_PER_EPOCH] * 2)
    assert at_95.loc["fixed", "best_epoch"].tolist() == [2, 2]
    assert at_95.loc["fixed", "area"].tolist() == [85, 170]
    assert set(speeds["horizon"]) == {3}


def test_a_baseline_always_reaches_its_own_target():
    speeds = speed_table(delayed({"fixed": 0.0}))
    assert speeds["reached"].all()
    times = speeds.pivot(index="seed", columns="share", values="epochs")
    assert (times.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_shares_are_kaplan_and_meiers():
    """statsmodels as the oracle, also where runs are censored at different times."""
    draw = np.random.default_rng(0)
    for _ in range(20):
        times = draw.integers(1, 10, 15).astype(float)
        reached = draw.random(15) < 0.7
        reached[0] = True
        ours = dict(zip(*share_reached(times, reached), strict=True))
        oracle = SurvfuncRight(times, reached)
        for time, survival in zip(oracle.surv_times, oracle.surv_prob, strict=True):
            assert ours[time] == pytest.approx(1 - survival)


def test_shares_by_hand_with_runs_censored_at_the_horizon():
    times, share = share_reached([2, 4, 4, 15], [True, True, True, False])
    assert times.tolist() == [2, 4, 15]
    assert share.tolist() == [0.25, 0.75, 0.75]
    assert share_reached([15, 15], [False, False])[1].tolist() == [0]


def test_the_restricted_mean_is_the_area_over_the_steps():
    """Of 1 − share reached, from 0 to the horizon: the definition of Royston and Parmar."""
    speeds = speed_table(delayed({"fixed": 0.0, "late": 9.0}, jitter=2.0))
    assert not speeds["reached"].all()
    for share in SHARES:
        steps = reached_table(speeds, share)
        means = speeds[speeds["share"] == share].groupby("method")["epochs"].mean()
        for method, rows in steps.groupby("method"):
            area = (np.diff(rows["epoch"]) * (1 - rows["reached"].to_numpy()[:-1] / 100)).sum()
            assert area == pytest.approx(means[method])
            assert rows["epoch"].iloc[[0, -1]].tolist() == [0, 15]
            assert rows["reached"].is_monotonic_increasing


def test_a_method_that_is_the_fixed_loss_differs_by_nothing_at_all():
    runs = delayed({"fixed": 0.0})
    compared = compare_speed(speed_table(runs | {PAPER_METHOD: runs["fixed"]}), 0.25)
    assert len(compared) == len(SHARES) + 1
    assert (compared[["estimate", "low", "high"]] == 0).all(axis=None)
    assert (compared["p_adjusted"] == 1).all()
    assert set(compared["verdict"]) == {"equivalent"}


@pytest.mark.parametrize(("delay", "verdict"), [(-2.0, "improves"), (2.0, "worsens")])
def test_two_epochs_are_found(delay, verdict):
    """A curve moved by two epochs is there two epochs sooner or later, at every target."""
    start = 3.0
    speeds = speed_table(delayed({"fixed": start, "variance": start + delay}, epochs=40))
    compared = compare_speed(speeds, 0.25)
    times = compared[compared["metric"] != OWN_BEST]
    # Straight lines between evaluations bend the shape a little.
    assert times["estimate"].tolist() == pytest.approx([delay] * 3, abs=0.05)
    assert set(times["verdict"]) == {verdict}
    finding = finding_of(speeds)
    assert finding.verdict == verdict
    assert finding.claim == 5
    assert [e.metric for e in finding.estimates] == ["epochs to 95 %", "epochs to 99 %"]
    assert {(e.unit, e.margin, e.lower_is_better) for e in finding.estimates} == {
        ("epochs", 0.25, True)
    }
    assert "variance × direction against fixed on scenes, 800 training" in finding.summary
    assert "40 epochs: 0 of variance × direction, 0 of fixed" in finding.summary
    assert "is found with probability 0.8" in finding.summary


def test_censored_runs_count_as_the_whole_horizon_and_are_counted():
    fixed = [rising(height=200)] * 4
    runs = replicated(fixed=fixed, variance=[rising(height=150)] * 3 + [rising(height=200)])
    speeds = speed_table(runs)
    summary = speed_summary(speeds).set_index("method")
    assert (
        summary.loc[PAPER_METHOD, ["censored_90", "censored_95", "censored_99"]].tolist() == [3] * 3
    )
    assert summary.loc["fixed", "censored_99"] == 0
    assert summary.loc[PAPER_METHOD, "epochs_99"] == np.inf
    reach = epochs_to(rising(height=200), 0.99 * rising(height=200).max())
    compared = compare_speed(speeds, 0.25).set_index("metric")
    assert compared.loc["epochs to 99 %", "estimate"] == pytest.approx((15 - reach) * 3 / 4)
    shown = speed_rows(summary.reset_index()).set_index("method")
    assert shown.loc[PAPER_METHOD, "to 99 %: epochs (steps)"] == "not reached"
    assert shown.loc[PAPER_METHOD, "runs never at 90 / 95 / 99 %"] == "3 / 3 / 3 of 4"
    finding = finding_of(speeds)
    assert "99 % in 15 epochs: 3 of variance × direction, 0 of fixed" in finding.summary


def test_summary_by_hand():
    """Fixed rises by 100 in its second epoch, the other by 80 from 20: at 90 after 70 of them."""
    runs = replicated(fixed=[[0, 100, 100]] * 2, variance=[[20, 100, 60], [20, 100, 60]])
    row = speed_summary(speed_table(runs)).set_index("method").loc[PAPER_METHOD]
    assert row["epochs_90"] == pytest.approx(1 + 70 / 80)
    assert row["steps_90"] == pytest.approx(STEPS_PER_EPOCH * (1 + 70 / 80))
    assert row["best_epoch"] == 2
    # (20 + 100)/2 + (100 + 60)/2 over two epochs is 70, against (0 + 100)/2 + 100 over two, 75.
    assert (row["area"], row["area_low"], row["area_high"]) == (-5, -5, -5)
    shown = speed_rows(speed_summary(speed_table(runs)))
    assert shown["mean rSum − fixed"].tolist() == ["–", "-5.00 [-5.00, -5.00]"]
    assert shown["to 90 %: epochs (steps)"].tolist() == ["1.90 (13)", "1.88 (13)"]


def test_the_claims_verdicts_do_not_depend_on_how_many_others_there_are():
    delays = {"fixed": 0.0, "variance": 0.01, "a": 0.02, "b": 0.0}
    speeds = speed_table(delayed(delays, jitter=0.3))
    compared = compare_speed(speeds, 0.25)
    primary = compared[compared["primary"]]
    assert primary["metric"].tolist() == ["epochs to 95 %", "epochs to 99 %"]
    assert set(primary["method"]) == {PAPER_METHOD}
    times = speeds.pivot(index=["share", "seed"], columns="method", values="epochs")
    p = [ttest_rel(times.loc[s, PAPER_METHOD], times.loc[s, "fixed"]).pvalue for s in (0.95, 0.99)]
    assert primary["p"].tolist() == pytest.approx(p)
    assert primary["p_adjusted"].tolist() == pytest.approx([min(1, 50 * one) for one in p])
    alone = compare_speed(speeds[speeds["method"].isin(["fixed", PAPER_METHOD])], 0.25)
    pd.testing.assert_frame_equal(
        primary.reset_index(drop=True), alone[alone["primary"]].reset_index(drop=True)
    )
    rest = compared[~compared["primary"]]
    assert len(rest) == 3 * (len(SHARES) + 1) - len(PRIMARY_SHARES)
    assert not compared.duplicated(["method", "metric"]).any()
    assert compared["method"].drop_duplicates().tolist() == [PAPER_METHOD, "a", "b"]


def test_the_detectable_effect_is_that_of_the_claims_comparisons():
    speeds = speed_table(delayed({"fixed": 0.0, "variance": 0.0}, jitter=0.3))
    compared = compare_speed(speeds, 0.25)
    finding = finding_of(speeds)
    deviation = compared[compared["primary"]]["deviation"].max()
    effect = minimum_detectable_effect(deviation, 20, alpha=0.001)
    assert f"A true difference of {effect:.2f} epochs" in finding.summary


def test_whole_epochs_are_what_evaluations_alone_would_say():
    speeds = speed_table(replicated(fixed=[[50, 100]] * 2, variance=[[90, 100]] * 2))
    assert speeds["whole"].tolist() == [2] * 6 + [1, 2, 2] * 2
    whole = compare_speed(speeds, 0.25, column="whole").set_index("metric")["estimate"]
    assert whole["epochs to 90 %"] == -1
    assert whole["epochs to 95 %"] == 0


def test_high_targets_lean_towards_the_baseline():
    """A method that is the baseline's equal, with wobbles of its own, seems late at 99 %."""
    draw = np.random.default_rng(0)
    wobbling = {
        method: [run(seed, rising() + draw.normal(0, 4, 15)) for seed in range(400)]
        for method in ("fixed", PAPER_METHOD)
    }
    compared = compare_speed(speed_table(wobbling), 0.25).set_index("metric")
    assert compared.loc["epochs to 99 %", "low"] > 0.25
    assert compared.loc["epochs to 90 %", "verdict"] == "equivalent"
    assert compared.loc[OWN_BEST, "low"] < 0 < compared.loc[OWN_BEST, "high"]


def test_what_cannot_be_compared_is_refused_by_name():
    runs = delayed({"fixed": 0.0, "a": 0.0})
    with pytest.raises(ValueError, match="baseline 'fxied' is not among"):
        speed_table(runs, "fxied")
    with pytest.raises(ValueError, match=r"\[5, 15\] epochs long"):
        speed_table(runs | {"short": [run(seed, rising(epochs=5)) for seed in range(20)]})
    with pytest.raises(ValueError, match="'few' and 'fixed' were run on different seeds"):
        speed_table(runs | {"few": runs["fixed"][:3]})
    with pytest.raises(ValueError, match="about 'variance × direction', which is not among"):
        compare_speed(speed_table(runs), 0.25)
    with pytest.raises(StatisticsError, match="margin"):
        compare_speed(speed_table(runs), 0, claimed="a")


def curves_chart(runs):
    reached = reached_table(speed_table(runs), 0.95)
    return convergence_curves(curve_table(runs), reached, 0.95, 180.0)


def test_figures_draw_every_method():
    runs = delayed({"fixed": 0.0, "learned τ": 0.1, "variance": 0.2, "entropy × sharpness": 9.0})
    compared = compare_speed(speed_table(runs), 0.25)
    for chart in (curves_chart(runs), speed_differences(compared, 0.25, "Sooner?")):
        assert draw(chart)[1].count("<path") > 8
        shown = {row["method"] for row in rows_of(chart) if "method" in row}
        assert shown >= set(runs) - {"fixed"}


def test_the_legend_names_what_is_there_and_no_more():
    chart = curves_chart(delayed({"fixed": 0.0, "variance": 0.2}))
    text = json.dumps(chart.to_dict(), ensure_ascii=False)
    assert '"domain": ["fixed", "direction"]' in text
    assert '"values": ["variance"]' in text
    bare = curves_chart(delayed({"fixed": 0.0, "learned τ": 0.2}))
    assert "by the signal" not in json.dumps(bare.to_dict())
