"""The board: equal budgets, what counts as tuned, a verdict that follows the comparisons."""

import math

import numpy as np
import pandas as pd
import pytest
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.rivals.board import (
    ENTRANTS,
    SETS,
    STUDY,
    captions_conclusion,
    compare,
    compare_captions,
    conclusion,
    tune_field,
    tuned_constants,
)
from lib.chapters.rivals.figures import leaderboard_chart, leaderboard_table
from lib.chapters.rivals.step_cost import cost_key, step_costs
from lib.chapters.shared.traces import relative_weights
from lib.chapters.shared.tuning import replicate, results_table
from lib.runs import RunConfig, Store
from lib.runs.schedules import CosineConfig, UncertaintyConfig
from lib.study.catalogue import load_profiles
from lib.training import Lab

SMALL = {
    "train_images": 40, "batch_size": 20, "embedding_dim": 8, "epochs": 2, "tuning_seeds": 1,
    "temperatures": [0.1, 0.2], "learning_rates": [0.01], "scheduled_temperatures": [0.2],
    "gammas": [1.0, 5.0], "targets": {"variance": [1.0, 2.0]}, "divergences": [0.5],
    "hinge_margins": [0.1, 0.2],
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    store = Store(folder=tmp_path_factory.mktemp("board") / "runs")
    return Lab(store, features=synthetic_features(), device="cpu")


@pytest.fixture(scope="module")
def tuned(lab):
    return tune_field(lab, validate("rivals", SMALL))


@pytest.fixture(scope="module")
def replicated(tuned, lab):
    return replicate(lab, tuned[0].chosen, range(3))


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_every_rival_has_as_many_candidates_as_the_fixed_loss(profile, root):
    profiles = load_profiles(root / "notebooks" / "profiles.yml")
    parameters = validate("rivals", profiles[profile].get("rivals", {}))
    fixed = RunConfig(learning_rate=0.003, temperature=0.125)
    grids = {name: rival.candidates(parameters, fixed) for name, rival in ENTRANTS.items()}
    assert {len(grid) for grid in grids.values()} == {len(parameters.temperatures)}
    for name, grid in grids.items():
        assert len({config.run_id for config in grid}) == len(grid), name
        assert {config.learning_rate for config in grid} == {0.003}
        assert 1 <= len(tuned_constants(grid)) <= 2, name


def test_a_swing_has_the_grids_temperature_as_its_mean():
    grid = ENTRANTS["cosine temperature"].candidates(validate("rivals", SMALL), RunConfig())
    schedules = [config.schedule for config in grid]
    assert [s.high / s.low for s in schedules] == pytest.approx([1.5, 3.0])
    assert [math.sqrt(s.high * s.low) for s in schedules] == pytest.approx([0.2, 0.2])


def test_constants_are_counted_where_candidates_differ():
    def swing(**own):
        return RunConfig(schedule=CosineConfig(**({"low": 0.1, "high": 0.2, "period": 1} | own)))

    assert tuned_constants([RunConfig(), RunConfig(seed=3)]) == []
    assert tuned_constants([swing(), swing(low=0.05), swing(period=2)]) == ["low", "period"]
    rates = [
        RunConfig(temperature=tau, schedule=UncertaintyConfig(rate=rate))
        for tau in (0.1, 0.2)
        for rate in (0.1, 0.2)
    ]
    assert sorted(tuned_constants(rates)) == ["rate", "temperature"]


def test_a_budget_that_differs_is_refused(lab):
    parameters = validate("rivals", SMALL | {"hinge_margins": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match=r"same, non-zero number.*'hardest negatives': 3"):
        tune_field(lab, parameters)


def test_the_field_holds_every_method_with_what_was_chosen(tuned):
    tuning, field = tuned
    assert field["method"].tolist() == list(SETS) == [*STUDY, *ENTRANTS]
    assert list(tuning.chosen) == list(SETS)
    assert (tuning.table.groupby("method")["chosen"].sum() == 1).all()
    about = field.set_index("method")
    assert about.loc["fixed", "constants"] in ("τ = 0.1", "τ = 0.2")
    assert about.loc["learned τ", "constants"].startswith("start at τ = ")
    assert about.loc["cosine temperature", "constants"].startswith("low = ")
    assert about.loc["sigmoid loss", "constants"].startswith("b = ")
    for several in ("multi-positive loss", "fixed, more captions"):
        assert "captions an image = " in about.loc[several, "constants"]
    learned = tuning.chosen["sigmoid loss, learned"]
    assert (learned.learn_bias, learned.learn_temperature) == (True, True)


def test_relative_weights_sum_to_two_whatever_the_weights(replicated):
    paths = relative_weights({"uncertainty": replicated["uncertainty weighting"]})
    ends = [record.step_table().iloc[-1] for record in replicated["uncertainty weighting"]]
    last = [2 * end["weight_i2t"] / (end["weight_i2t"] + end["weight_t2i"]) for end in ends]
    row = paths.iloc[-1]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(
        (np.mean(last), min(last), max(last))
    )


def board(**gains: float) -> pd.DataFrame:
    """Runs of eight seeds whose methods are ``fixed`` plus a gain, hardly noisy."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(8):
        level = rng.normal(scale=3)
        for method, gain in {"fixed": 0.0, **gains}.items():
            value = 20 + level + gain + rng.normal(scale=0.02)
            rows.append((method, seed, value, value, 6 * value))
    return pd.DataFrame(rows, columns=["method", "seed", "i2t_r1", "t2i_r1", "rsum"])


def test_the_verdict_names_what_is_better_and_what_it_sets():
    gains = {"cosine temperature": 0.8, "GradNorm": 0.0, "sigmoid loss": -2.0, "learned τ": 1.5}
    table = compare(board(**gains), margin=0.3)
    assert set(table["metric"]) == {"i2t R@1", "t2i R@1", "mean recall"}
    text = conclusion(table)
    assert "the gain in mean recall: learned τ (temperature, +1." in text
    assert text.index("learned τ (") < text.index("cosine temperature (")
    assert "By what they set: of 2 that set the temperature, 2 better (the furthest: lea" in text
    assert "; of 1 that set the weights of the directions, 1 equivalent (" in text
    assert "; of 1 that set the loss, 1 worse (the furthest: sigmoid loss, -2." in text


def test_the_verdict_names_each_method_once():
    text = conclusion(compare(board(GradNorm=0.0, **{"sigmoid loss": 2.0}), margin=0.3))
    assert text.count("sigmoid loss") == 1
    assert "By what they set" not in conclusion(compare(board(**{"sigmoid loss": 2.0}), margin=0.3))


def test_the_verdict_says_so_if_nothing_is_better():
    text = conclusion(compare(board(GradNorm=0.0), margin=0.3))
    assert text.startswith("No method is shown to be better than the tuned fixed loss.")


def test_more_positives_are_compared_with_as_many_captions():
    gains = {"fixed, more captions": 0.9, "multi-positive loss": 1.5, "GradNorm": 3.0}
    table = compare_captions(board(**gains), margin=0.3)
    assert set(table["method"]) == {"multi-positive loss"}
    assert set(table["baseline"]) == {"fixed, more captions"}
    assert len(table) == 3
    assert table["estimate"].to_numpy() == pytest.approx(0.6, abs=0.05)
    assert set(table["verdict"]) == {"improves"}
    said = captions_conclusion(table)
    assert "as many captions" in said
    assert said.count("(improves)") == 3


def test_mean_recall_is_a_sixth_of_rsum():
    runs = board(GradNorm=0.5)
    table = compare(runs, margin=0.3).set_index("metric")
    by = runs.pivot(index="seed", columns="method", values="rsum")
    expected = (by["GradNorm"] - by["fixed"]).mean() / 6
    assert table.loc["mean recall", "estimate"] == pytest.approx(expected)


def test_the_page_shows_the_whole_board_best_first(tuned, replicated):
    compared = compare(results_table(replicated), margin=0.3)
    field = tuned[1].assign(ratio=1.25)
    table = leaderboard_table(compared, field)
    assert set(table["method"]) == set(SETS) - {"fixed"}
    mean = compared[compared["metric"] == "mean recall"].set_index("method")["estimate"]
    assert mean[table["method"]].is_monotonic_decreasing
    assert set(table["cost of a step"]) == {"1.2 ×"}
    assert conclusion(compared)
    chart = leaderboard_chart(compared, 0.3).to_dict()
    titles = [block["title"]["text"] for block in chart["vconcat"]]
    assert [title.removeprefix("sets the ") for title in titles] == [
        "temperature", "weights of the directions", "weights and size of the loss", "loss",
        "captions of a step",
    ]  # fmt: skip


def test_a_steps_cost_is_a_multiple_of_the_fixed_losss(monkeypatch):
    """With a clock that counts its own readings each step takes one tick."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(
        "lib.chapters.rivals.step_cost.time.perf_counter", lambda: float(next(ticks))
    )
    small = {"train_images": 4, "batch_size": 8, "embedding_dim": 4}
    methods = {
        "fixed": RunConfig(**small),
        "several": RunConfig(**small, loss="multi_positive", captions_at_once=2),
    }
    table = step_costs(methods, 2)
    assert table["method"].tolist() == ["fixed", "several"]
    assert table["ratio"].tolist() == [1.0, 1.0]
    assert cost_key(methods, 2) != cost_key(methods, 3)
    assert cost_key(methods, 2) == cost_key({n: c.with_seed(5) for n, c in methods.items()}, 2)
