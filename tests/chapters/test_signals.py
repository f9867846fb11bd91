"""What the scheduler sees: ratios, the identity on data, and conditions that change one thing."""

import math

import numpy as np
import pandas as pd
import pytest
from finished import traced
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic_features

from lib.chapters.shared.traces import imbalance
from lib.chapters.shared.verdicts import against
from lib.chapters.signals.conditions import CONDITIONS, Compared
from lib.chapters.signals.imbalance import (
    conclusion,
    condition_table,
    gamma_for,
    hubness_table,
    ratio_table,
    under,
    weight_at,
)
from lib.runs import RunConfig, ScheduleConfig, Store
from lib.training import Lab


def record(rows, columns, weights=1.0, seed=0):
    return traced(RunConfig(seed=seed), signal_i2t=rows, signal_t2i=columns, weight_i2t=weights)


def test_the_ratio_is_that_of_rows_to_columns():
    runs = record([0.04, 0.02], [0.02, 0.02]), record([0.01, 0.02], [0.02, 0.02], seed=1)
    seen = imbalance(list(runs))
    expected = [math.log(2), 0, -math.log(2), 0]
    np.testing.assert_allclose(seen["log_ratio"], expected, rtol=0, atol=1e-6)
    paths = ratio_table(seen).set_index("step")
    assert paths.loc[1].tolist() == pytest.approx([25.0, -50.0, 100.0], abs=1e-4)
    assert paths.loc[2].tolist() == pytest.approx([0, 0, 0], abs=1e-4)


def test_a_collapsed_batch_has_no_ratio_and_no_infinity():
    assert imbalance([record([0.0], [0.0])])["log_ratio"].tolist() == [0.0]


@given(st.floats(-1, 1), st.floats(-20, 20))
def test_the_weight_is_what_the_scheduler_sets(log_ratio, gamma):
    u, v = math.exp(log_ratio / 2), math.exp(-log_ratio / 2)
    expected = 2 * u**gamma / (u**gamma + v**gamma)
    assert weight_at(log_ratio, gamma) == pytest.approx(expected)


@given(st.floats(1e-4, 1), st.floats(0.01, 0.9))
def test_the_exponent_for_a_shift_gives_that_shift(log_ratio, shift):
    assert weight_at(log_ratio, gamma_for(log_ratio, shift)) == pytest.approx(1 + shift)


def test_without_a_difference_no_exponent_is_enough():
    assert gamma_for(0.0) == math.inf


def test_the_identity_holds_on_trained_heads(tmp_path):
    features = synthetic_features(test=40)
    configs = [
        RunConfig(train_images=50, embedding_dim=8, batch_size=16, epochs=2, seed=seed)
        for seed in (0, 1)
    ]
    lab = Lab(Store(folder=tmp_path / "runs"), features=features, device="cpu")
    table = hubness_table(lab, configs)
    assert table["seed"].tolist() == [0, 0, 0, 1, 1, 1]  # 40 images: 16, 16 and 8.
    np.testing.assert_allclose(
        table["signal"], table["caption_hubs"] - table["image_hubs"], atol=1e-12
    )
    assert table["signal"].abs().min() > 1e-7  # Or the identity would say nothing.
    assert (table["total"] > table["caption_hubs"] + table["image_hubs"]).all()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_changes_what_its_name_says_for_both_alike(condition):
    fixed = RunConfig(train_images=1000, epochs=15, temperature=0.125)
    scheduled = fixed.model_copy(
        update={"schedule": ScheduleConfig(signal="variance", actuator="direction")}
    )
    plain, adaptive = under(fixed, condition), under(scheduled, condition)
    assert plain.schedule is None
    assert adaptive.model_copy(update={"schedule": None}) == plain
    assert (plain == fixed) == (condition == "default")
    assert 5 <= plain.epochs <= 45


def test_an_unknown_condition_is_refused():
    with pytest.raises(ValueError, match=r"'warm' is not a condition; there are default"):
        under(RunConfig(), "warm")


def test_the_table_of_conditions_says_how_far_and_to_what_effect():
    fixed = [record([0.02, 0.02], [0.01, 0.04], seed=seed) for seed in (0, 1)]
    scheduled = [record([0.02, 0.02], [0.02, 0.02], [0.8, 1.1], seed=seed) for seed in (0, 1)]
    records = {Compared("default", "fixed"): fixed, Compared("default", "scheduled"): scheduled}
    runs = pd.DataFrame(
        [
            {"method": method, "seed": seed, "i2t_r1": 10.0 + seed, "t2i_r1": 9.0 + gain}
            for method, gain in (("fixed", 0.0), ("scheduled", 0.1))
            for seed in (0, 1)
        ]
    ).assign(condition="default")
    differences = against(runs, "fixed", 0.3, within="condition")
    (row,) = condition_table(records, differences).to_dict("records")
    assert row["condition"] == "default"
    assert row["variances differ, typical batch"] == f"{math.log(2):.2%}"
    assert row["weights moved by up to"] == "0.200"
    assert row["i2t R@1, points"] == "+0.00 [+0.00, +0.00] equivalent"
    assert row["t2i R@1, points"] == "+0.10 [+0.10, +0.10] equivalent"


def test_the_verdict_names_what_is_not_chance_and_nothing_else():
    def rows(verdicts):
        return pd.DataFrame(
            [
                {"condition": f"m{i}", "metric": "i2t R@1", "estimate": 0.5 - i,
                 "verdict": v, "gamma": 10.0 * i}
                for i, v in enumerate(verdicts)
            ]
        )  # fmt: skip

    quiet = conclusion(0.01, rows(["equivalent", "undecided"]), rows(["equivalent", "undecided"]))
    assert "nothing that is more than chance" in quiet
    assert "1 of 2 comparisons" in quiet
    assert "none is more than chance" in quiet
    loud = conclusion(0.01, rows(["improves", "worsens"]), rows(["undecided", "worsens"]))
    assert "γ = 0 improves i2t R@1 (+0.50); γ = 10 worsens i2t R@1 (-0.50)" in loud
    assert "not chance: m1, i2t R@1 worsens (-0.50)" in loud
