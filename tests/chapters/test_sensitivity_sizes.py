"""The effect by size: what is tuned, compared and recommended."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.sensitivity import sizes
from lib.chapters.sensitivity.sizes import (
    BOTH,
    CAPTIONS,
    CCA,
    DECAY,
    FIXED,
    against_fixed,
    choose,
    neighbours,
    recommend,
)
from lib.chapters.shared.tuning import replicate
from lib.chapters.shared.verdicts import PAPER_METHOD
from lib.runs import TEST_COLUMNS, RunConfig, Store
from lib.training import Lab

SMALL = {
    "train_images": 40, "batch_size": 16, "embedding_dim": 8, "epochs": 2, "tuning_seeds": 1,
    "temperatures": [0.1, 0.15, 0.2], "learning_rates": [0.003, 0.01, 0.03],
    "gammas": [1.0, 5.0], "targets": {"variance": [1.0, 2.0, 3.0, 1.5, 2.5, 4.0]},
    "decayed_rates": [0.01, 0.03], "least_steps": 6, "seeds": 3, "train_sizes": [20, 40],
    "scheduled_temperatures": [0.1, 0.15, 0.2],
}  # fmt: skip


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=8, unique=True).flatmap(
        lambda values: st.tuples(st.just(values), st.sampled_from(values), st.integers(1, 4))
    )
)
def test_neighbours_hold_the_best_and_are_in_order(case):
    values, best, count = case
    near = neighbours(values, best, count)
    assert best in near
    assert near == sorted(near)
    assert len(near) == min(count, len(values))
    assert sum(value > best for value in near) <= max(0, count - 1 - sorted(values).index(best))


def results(gain, validation_gain, seeds=12, sizes_=(100, 1000)):
    """Runs in which each candidate gains what is said, by size, with a little noise."""
    draws = np.random.default_rng(0)
    rows = []
    for place, size in enumerate(sizes_):
        for seed in range(seeds):
            base = draws.normal(10, 1)
            for method in (FIXED, PAPER_METHOD, CCA, DECAY, BOTH, CAPTIONS):
                test = base + gain.get(method, (0, 0))[place] + draws.normal(0, 0.05)
                # The cheapest candidate is behind, unless it is said to be ahead.
                usual = -1 if method == CCA else 0
                validation = base + validation_gain.get(method, usual) + draws.normal(0, 0.05)
                rows.append((method, seed, size, validation, *[test] * len(TEST_COLUMNS)))
    columns = ["method", "seed", "train_images", "validation_rsum", *TEST_COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def test_differences_are_within_a_size_and_in_one_family():
    runs = results({DECAY: (1.0, -1.0), BOTH: (2.0, 0.0)}, {})
    table = against_fixed(runs, 0.3)
    assert len(table) == 2 * 5 * 2
    found = table[table["metric"] == "i2t R@1"].set_index(["train_images", "method"])["estimate"]
    assert found[100, DECAY] == pytest.approx(1.0, abs=0.1)
    assert found[1000, DECAY] == pytest.approx(-1.0, abs=0.1)
    assert found[100, BOTH] == pytest.approx(2.0, abs=0.1)
    assert set(table["baseline"]) == {FIXED}


@pytest.mark.parametrize(
    ("gain", "validation", "chosen"),
    [
        ({DECAY: (1, 1), BOTH: (1, 1)}, {}, DECAY),
        ({DECAY: (1, 1), BOTH: (1, 1)}, {BOTH: 2}, BOTH),
        # A richer setting that tests better but validates no better is not taken.
        ({DECAY: (1, 1), BOTH: (5, 5)}, {BOTH: -1}, DECAY),
        ({DECAY: (1, 0), BOTH: (0, 0)}, {}, DECAY),
        ({DECAY: (1, -1), BOTH: (0, 0)}, {}, FIXED),
        ({}, {}, FIXED),
        ({CAPTIONS: (1, 1)}, {CAPTIONS: 2}, CAPTIONS),
        ({CAPTIONS: (1, 1)}, {BOTH: 2, CAPTIONS: 3}, CAPTIONS),
        # Better than the first, but not than the second that was taken in its place.
        ({BOTH: (1, 1), CAPTIONS: (1, 1)}, {BOTH: 3, CAPTIONS: 2}, BOTH),
        ({CCA: (1, 1), CAPTIONS: (1, 1)}, {CCA: 3, CAPTIONS: 2}, CCA),
        ({CCA: (1, 1), CAPTIONS: (1, 1)}, {CCA: 1, CAPTIONS: 2}, CAPTIONS),
    ],
)
def test_the_recommendation_follows_its_rule(gain, validation, chosen):
    runs = results(gain, validation)
    assert choose(runs, against_fixed(runs, 0.3)) == chosen


def test_where_none_is_recommended_the_nearest_is_named_with_where_it_gains():
    compared = against_fixed(results({CAPTIONS: (0, 2)}, {}), 0.3)
    found = recommend(FIXED, "sensitivity", {1000: {FIXED: RunConfig()}}, compared, 1000)
    gains = compared[compared["verdict"] == "improves"]["estimate"]
    assert len(gains) == 2
    i2t, t2i = gains
    assert (
        f"(“{CAPTIONS}”) improves in 2 of 4: i2t R@1 {i2t:+.2f} at 1,000 images, "
        f"t2i R@1 {t2i:+.2f} at 1,000 images; it loses in 0."
    ) in found.summary
    compared = against_fixed(results({}, {}), 0.3)
    found = recommend(FIXED, "sensitivity", {1000: {FIXED: RunConfig()}}, compared, 1000)
    assert "improves in 0 of 4; it loses in 0." in found.summary


def test_every_method_is_tuned_and_stated(tmp_path):
    parameters = validate("sensitivity", SMALL)
    lab = Lab(Store(folder=tmp_path / "runs"), features=synthetic_features(), device="cpu")
    tuned = {size: sizes.tune_at(lab, parameters, size) for size in (20, 40)}
    assert tuned[20][FIXED].epochs == 6, "20 images are one batch and a rest: an epoch a step"
    assert tuned[40][FIXED].epochs == 3
    for methods in tuned.values():
        fixed = methods[FIXED]
        assert methods[PAPER_METHOD].learning_rate == fixed.learning_rate
        assert methods[PAPER_METHOD].schedule.signal == "variance"
        assert methods[DECAY].learning_rate_decay == "cosine"
        assert methods[BOTH].learning_rate_decay == "cosine"
        assert methods[BOTH].learning_rate == methods[DECAY].learning_rate
        assert methods[BOTH].schedule.actuator == "sharpness"
        assert fixed.learning_rate_decay == "none"
        assert methods[CAPTIONS].captions_at_once in (2, 5)
        assert methods[CAPTIONS].learning_rate == fixed.learning_rate
    replicated = {n: replicate(lab, methods, range(3)) for n, methods in tuned.items()}
    runs = sizes.size_runs(replicated)
    record = replicated[40][DECAY][1]
    row = runs[(runs.train_images == 40) & (runs.method == DECAY) & (runs.seed == 1)].iloc[0]
    assert row["validation_rsum"] == record.epochs[record.best_epoch - 1, -1]
    stated = sizes.constants_table(tuned, runs)
    assert len(stated) == 12
    assert stated["own constants"].str.startswith("ridge").sum() == 2
    assert stated["τ"].tolist().count("scheduled") == 2
    compared = against_fixed(runs, 0.3)
    heads = recommend(CCA, "sensitivity", tuned, compared, 40)
    assert f"{tuned[40][CCA].start.image_ridge:g} (images)" in heads.settings["ridges"]
    assert "tune the ridges and the power on" in heads.summary
    for name in (FIXED, DECAY, BOTH, CAPTIONS):
        found = recommend(name, "sensitivity", tuned, compared, 40)
        assert {e.train_images for e in found.estimates} == (set() if name == FIXED else {20, 40})
        assert f"{tuned[40][name].learning_rate:g}" in found.settings["learning rate"]
        assert ("cosine" in found.settings["learning rate"]) == (name in (DECAY, BOTH))
        assert ("captions of an image in a step" in found.settings) == (name == CAPTIONS)
