"""Controls: which runs they are, how a gain is split, and what the verdict says of it."""

import pandas as pd
import pytest
from synthetic import levelled_runs

from lib.chapters import controls
from lib.runs import ConstantConfig, ReplayConfig, RunConfig, ScheduleConfig

DIRECTION = ScheduleConfig(signal="variance", actuator="direction", gamma=300.0)
SHARPNESS = ScheduleConfig(signal="entropy", actuator="sharpness", target=0.6)


def test_constant_weights_carry_their_value():
    made = controls.constant_weights(RunConfig(temperature=0.2), [0.5, 1.25])
    assert list(made) == ["w = 0.5", "w = 1.25"]
    assert made["w = 1.25"].schedule == ConstantConfig(weight_i2t=1.25)
    assert made["w = 0.5"].temperature == 0.2


def test_a_weight_scheduler_has_four_controls_and_a_temperature_two():
    made = controls.controls(RunConfig(schedule=DIRECTION), "it")
    assert list(made) == [
        "it: own mean", "it: other seed's path", "it: random path", "it: sign flipped",
    ]  # fmt: skip
    assert made["it: sign flipped"].schedule == DIRECTION.model_copy(update={"gamma": -300.0})
    forms = [
        (c.schedule.whose, c.schedule.form)
        for c in made.values()
        if isinstance(c.schedule, ReplayConfig)
    ]
    assert forms == [("own", "mean"), ("other", "path"), ("own", "surrogate")]
    made = controls.controls(RunConfig(schedule=SHARPNESS), "it")
    assert list(made) == ["it: own mean", "it: other seed's path"]


def test_what_is_not_scheduled_has_no_controls():
    with pytest.raises(ValueError, match="fixed has no scheduler"):
        controls.controls(RunConfig(), "it")


def runs(**levels):
    return levelled_runs(levels, i2t=10, t2i=8)


def chain(mean, path, adaptive):
    return runs(**{"fixed": 0.0, "s: own mean": mean, "s: other seed's path": path, "s": adaptive})


def test_the_parts_of_a_gain_sum_to_it():
    table = controls.attribution(chain(0.2, 0.9, 1.0), ["s"], 0.3)
    for _, rows in table.groupby("metric"):
        by_part = rows.set_index("part")["estimate"]
        parts = by_part[["its mean", "its path", "adapting"]].sum()
        assert parts == pytest.approx(by_part["whole gain"])
    named = table[table["metric"] == "i2t R@1"].set_index("part")
    assert named["estimate"].to_dict() == pytest.approx(
        {"its mean": 0.2, "its path": 0.7, "adapting": 0.1, "whole gain": 1.0}, abs=0.05
    )
    parts = ["its mean", "its path", "adapting", "whole gain"]
    verdicts = ["equivalent", "improves", "equivalent", "improves"]
    assert named.loc[parts, "verdict"].tolist() == verdicts


def decays(without="equivalent", scheduled="undecided"):
    """The fixed loss with a decaying rate against that without, a scheduler against the former."""
    rows = [
        ("fixed, decay", "fixed", "i2t R@1", 0.4, without),
        ("s, decay", "fixed, decay", "i2t R@1", 0.2, scheduled),
    ]
    return pd.DataFrame(rows, columns=["method", "baseline", "metric", "estimate", "verdict"])


NOTHING = pd.DataFrame(
    [("w = 0.5", "i2t R@1", -1.0, "worsens")], columns=["method", "metric", "estimate", "verdict"]
)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((0.0, 1.0, 1.0), "is due to its path"),
        ((0.0, 0.0, 1.0), "is due to adapting"),
        ((1.0, 2.0, 3.0), "is due to its mean and its path and adapting"),
        ((0.2, 0.4, 0.6), "more than any single part of it can be shown to be"),
        ((0.0, 0.0, 0.0), "`s` shows no gain to explain."),
    ],
)
def test_the_verdict_names_the_part_that_gains(levels, said):
    text = controls.conclusion(
        NOTHING, NOTHING, controls.attribution(chain(*levels), ["s"], 0.3), decays()
    )
    assert said in text
    assert ("No gain in this chapter is shown to come from adapting." in text) == (
        "adapting" not in said
    )
    assert "No constant weighting is better" in text


def test_a_helpful_constant_is_named():
    better = NOTHING.assign(verdict="improves", estimate=0.7)
    parts = controls.attribution(chain(0, 0, 0), ["s"], 0.3)
    text = controls.conclusion(better, NOTHING, parts, decays())
    assert "Better than the fixed loss: w = 0.5 (i2t R@1 +0.70)." in text


def test_the_verdict_tells_what_a_decaying_rate_does_and_what_is_left_beside_it():
    parts = controls.attribution(chain(0, 0, 0), ["s"], 0.3)
    text = controls.conclusion(NOTHING, NOTHING, parts, decays("improves"))
    assert "changes the fixed loss by +0.40 in i2t R@1 (improves)" in text
    assert "With that decay no scheduled temperature is better than the fixed one." in text
    text = controls.conclusion(NOTHING, NOTHING, parts, decays(scheduled="improves"))
    assert "With that decay, still better than the fixed loss: s, decay (i2t R@1 +0.20)." in text
