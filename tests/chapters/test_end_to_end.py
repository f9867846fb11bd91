"""The chapter on trained towers: its settings, its comparisons and what the verdict says."""

import math

import pandas as pd
import pytest
from drawing import draw, rows_of
from finished import traced
from idle import IdleLab
from synthetic import levelled_runs

from lib.chapters import end_to_end
from lib.chapters.end_to_end import differ_chart
from lib.chapters.parameters import EndToEndParameters
from lib.chapters.shared import charts
from lib.runs import RunConfig, ScheduleConfig
from lib.study.catalogue import load_profiles

VARIANCE = ScheduleConfig(signal="variance", actuator="direction", gamma=10.0)


def test_settings_differ_in_their_towers():
    parameters = EndToEndParameters(scratch_images=300, scratch_epochs=7, epochs=4)
    scratch, blocks, frozen = (
        end_to_end.base_config(parameters, setting)
        for setting in ("from scratch", "last blocks", "frozen")
    )
    assert scratch.towers.trained == "from scratch"
    assert (scratch.image_tower, scratch.text_tower) == ("resnet18@32", "gru")
    assert (scratch.train_images, scratch.epochs, scratch.learning_rate) == (300, 7, 1e-3)
    assert scratch.towers.augmentation == "crop and flip"
    assert blocks.towers.trained == "last blocks"
    assert (blocks.epochs, blocks.towers.learning_rate) == (4, 1e-4)
    assert frozen == blocks.model_copy(update={"towers": None, "epochs": 10})


def test_every_method_gets_the_same_budget(monkeypatch):
    asked = []

    def best_of_all(lab, candidates, seeds):
        asked.append({name: len(configs) for name, configs in candidates.items()})
        middle = {name: configs[1] for name, configs in candidates.items()}
        return end_to_end.Tuning(middle, pd.DataFrame())

    monkeypatch.setattr(end_to_end, "tune", best_of_all)
    parameters = EndToEndParameters(
        temperatures=[0.05, 0.1, 0.2], gammas=[1, 10, 100], signals=["variance", "spread"]
    )
    base = end_to_end.base_config(parameters, "last blocks")
    found = end_to_end.chosen(end_to_end.tune_setting(IdleLab(), base, parameters))
    assert asked == [{"fixed": 3}, {"variance × direction": 3, "spread × direction": 3}]
    assert {config.temperature for config in found.values()} == {0.1}
    assert found["variance × direction"].schedule == VARIANCE
    with pytest.raises(ValueError, match="temperatures has 3 values and gammas 1"):
        end_to_end.tune_setting(IdleLab(), base, parameters.model_copy(update={"gammas": [1.0]}))


def runs(**gains):
    return levelled_runs(gains, i2t=5, t2i=4)


@pytest.fixture
def compared():
    methods = ("fixed", "variance × direction", "entropy × direction")
    nothing = runs(**dict.fromkeys(methods, 0.0))
    something = runs(**dict(zip(methods, (0.0, 2.0, 0.0), strict=True)))
    return end_to_end.compare({"from scratch": nothing, "last blocks": something}, 0.3)


def test_comparisons_pair_within_a_setting(compared):
    assert len(compared) == 2 * 3 * 2
    rows = compared.set_index(["towers", "method", "baseline", "metric"])
    paper = "variance × direction"
    for rival in ("fixed", "entropy × direction"):
        row = rows.loc[("last blocks", paper, rival, "i2t R@1")]
        assert row["estimate"] == pytest.approx(2.0, abs=0.05)
        assert row["verdict"] == "improves"
    other = rows.drop(index=[("last blocks", paper, r, "i2t R@1") for r in ("fixed", rival)])
    assert set(other["verdict"]) == {"equivalent"}
    shown = end_to_end.labelled(compared)["method"]
    assert shown.iloc[0] == "from scratch: variance × direction"


def record(rows, columns, weights, schedule=None):
    """A record with these variances and weights, step by step."""
    config = RunConfig(schedule=schedule)
    return traced(config, signal_i2t=rows, signal_t2i=columns, weight_i2t=weights)


def test_signals_are_told_by_setting_and_method():
    still = record([1.0, 1.0], [1.0, math.e], [1.0, 1.0])
    moved = record([1.0, 1.0], [1.0, 1.0], [1.25, 0.5], VARIANCE)
    table = end_to_end.signal_table({"frozen": {"fixed": [still], "variance": [moved]}})
    assert table["differ"].tolist() == pytest.approx([0.5, 0.0])
    assert table["furthest"].tolist() == pytest.approx([0.0, 0.5])
    assert math.isnan(table["gamma"][0])
    assert table["gamma"][1] == 10


def test_settings_of_any_length_lie_on_one_axis():
    short = record([1.0, math.e], [1.0, 1.0], [1.0, 1.0])
    long = record([1.0] * 4 + [math.e] * 4, [1.0] * 8, [1.0] * 8)
    table = end_to_end.ratio_by_progress({"a": [short], "b": [long, long]}, bins=2)
    for setting in ("a", "b"):
        own = table[table["towers"] == setting]
        assert own["progress"].tolist() == [25.0, 75.0]
        assert own["differ"].tolist() == pytest.approx([0.0, 100.0])


def test_chance_counts_by_hand():
    # Two images, two captions each. Text → image: 50, 100, 100. Image → text: one of four captions
    # hits with 2/4, five or ten hold all.
    assert end_to_end.chance_rsum(2, 4) == pytest.approx(50 + 100 + 100 + 50 + 100 + 100)


def test_power_is_that_of_the_most_scattered_method(compared):
    table = end_to_end.power(compared, {"i2t R@1": 2.3, "t2i R@1": 1.5})
    assert table["seeds"].tolist() == [20] * 4
    assert (table["found in a family"] > table["found alone"]).all()
    fixed = compared[compared["baseline"] == "fixed"]
    worst = fixed.groupby(["towers", "metric"])["deviation"].max()
    # Noncentral t at 80 % power, 19 degrees of freedom, two-sided 5 %: 0.66 standard deviations.
    for row in table.to_dict("records"):
        expected = 0.6604 * worst[row["towers"], row["metric"]]
        assert row["found alone"] == pytest.approx(expected, rel=0.01)


def test_the_verdict_says_what_was_found(compared):
    paper = "variance × direction"
    signals = pd.DataFrame(
        [
            {"towers": towers, "method": method, "gamma": 10.0, "differ": 0.0123, "furthest": 0.05}
            for towers in ("from scratch", "last blocks")
            for method in ("fixed", paper)
        ]
    )
    powers = end_to_end.power(compared, {"i2t R@1": 2.3, "t2i R@1": 1.5})
    said = end_to_end.conclusion(compared, signals, powers, ["from scratch", "last blocks"])
    assert "**From scratch.**" in said
    assert "differ by 1.23%" in said
    assert "leave 1 by 0.050 at most, at γ = 10" in said
    assert "More than chance: last blocks, variance × direction improves i2t R@1 against" in said
    calm = end_to_end.conclusion(compared, signals, powers, ["from scratch"])
    assert "no difference is more than chance" in calm


def test_a_gpu_runs_the_chapter_at_full_size(root):
    gpu = load_profiles(root / "notebooks" / "profiles.yml")["gpu"]
    assert list(gpu) == ["end-to-end"]
    assert gpu["end-to-end"]["scratch_pixels"] == 224
    assert gpu["end-to-end"]["seeds"] >= 20


def test_the_figure_of_the_signals_draws_one_line_per_kind_of_towers():
    towers = ["from scratch"] * 2 + ["frozen"] * 2
    table = pd.DataFrame(
        {"progress": [25.0, 75.0] * 2, "differ": [1, 2, 0.5, 0.25], "towers": towers}
    )
    chart = differ_chart(table)
    spec, svg = draw(chart)
    assert "from scratch" in svg
    assert spec["encoding"]["color"]["sort"] == ["from scratch", "frozen"]
    assert rows_of(chart) == table.to_dict("records")
    assert "directions differ" in charts.description(spec)


def test_tables_of_several_settings_say_whose_they_are():
    tuning = end_to_end.Tuning({}, pd.DataFrame({"method": ["fixed"], "rsum": [1.0]}))
    table = end_to_end.tuning_table({"frozen": {"a": tuning, "b": tuning}, "blocks": {"a": tuning}})
    assert table["towers"].tolist() == ["frozen", "frozen", "blocks"]
    assert table["method"].tolist() == ["fixed"] * 3
