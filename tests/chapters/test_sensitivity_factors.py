"""One factor at a time: what each level changes, and nothing else."""

import pandas as pd
import pytest
from synthetic import synthetic_features

from lib.chapters.sensitivity.factors import DEFAULT, FACTORS
from lib.chapters.sensitivity.levels import compare_levels, conclusion, level_table, levels
from lib.chapters.sensitivity.sizes import DECAY, FIXED
from lib.chapters.shared.tuning import replicate
from lib.chapters.shared.verdicts import PAPER_METHOD
from lib.runs import RunConfig, ScheduleConfig, Store
from lib.training import Lab

BASE = RunConfig(train_images=40, batch_size=16, embedding_dim=8, epochs=5, temperature=0.15)
CHOSEN = {
    FIXED: BASE,
    PAPER_METHOD: BASE.model_copy(
        update={"schedule": ScheduleConfig(signal="variance", actuator="direction", gamma=1.0)}
    ),
    DECAY: BASE.model_copy(update={"learning_rate_decay": "cosine"}),
}


def test_a_level_changes_one_thing_for_all_methods_alike():
    neutral = set(RunConfig.model_fields) - {"epochs", "schedule"}
    found = levels(CHOSEN, list(FACTORS), 10.0)
    for level, config in found.items():
        changes = {} if level.factor == DEFAULT[0] else FACTORS[level.factor][level.value]
        in_config = {name: value for name, value in changes.items() if name in neutral}
        assert config == RunConfig.model_validate(config.model_dump())
        for name in neutral:
            expected = in_config.get(name, getattr(CHOSEN[level.method], name))
            assert getattr(config, name) == expected, (level, name)
        if level.method == PAPER_METHOD:
            assert config.scheduler.gamma == changes.get("gamma", 10.0)
            assert config.scheduler.beta == changes.get("beta", 0.9)
            assert config.scheduler.warmup == changes.get("warmup", 0)
        of_the_scheduler = level.factor in ("γ", "smoothing β", "warm-up")
        assert (level._replace(method=DECAY) in found) != of_the_scheduler


def test_a_scheduled_temperature_is_left_out_if_the_temperature_moves():
    sharp = BASE.model_copy(
        update={"schedule": ScheduleConfig(signal="variance", actuator="sharpness", target=1.5)}
    )
    found = levels({**CHOSEN, "sharp": sharp}, ["temperature", "dropout"], 10.0)
    assert {level.factor for level in found} == {"default", "temperature", "dropout"}
    assert {level.factor for level in found if level.method == "sharp"} == {"default", "dropout"}


def test_larger_batches_get_more_epochs():
    found = levels(CHOSEN, ["batch size"], 1.0)
    by_value = {level.value: config for level, config in found.items() if level.method == FIXED}
    # 40 images in batches of 16 are three steps per epoch, fifteen in all; then they are one.
    assert by_value["as tuned"].epochs == 5
    assert by_value["512"].epochs == 15


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match="unknown factor weather; there are batch size, "):
        levels(CHOSEN, ["dropout", "weather"], 1.0)


def test_levels_are_trained_and_compared(tmp_path):
    lab = Lab(Store(folder=tmp_path / "runs"), features=synthetic_features(), device="cpu")
    runs = replicate(lab, levels(CHOSEN, ["captions an image", "γ"], 10.0), range(3))
    compared = compare_levels(runs, 0.3)
    assert len(compared) == 2 * (2 + 2 + 1 + 1)
    assert set(compared["method"]) == {PAPER_METHOD, DECAY}
    table = level_table(runs)
    assert table["value"].tolist() == ["as tuned", "1", "−10", "1"]
    assert table.loc[0, "rSum"] == table.loc[2, "rSum"] != table.loc[1, "rSum"]
    sizes = compared.assign(train_images=40)
    text = conclusion(sizes, compared, table)
    assert "variance × direction" in text
    assert f"{table['rSum'].max():.1f}" in text


def rows(verdicts):
    named = [f"f: {place}" for place in range(len(verdicts))]
    return pd.DataFrame({"method": PAPER_METHOD, "verdict": verdicts, "level": named})


def test_the_sentence_names_where_the_scheduler_does_something():
    table = pd.DataFrame({"factor": ["a", "b"], "value": ["1", "2"], "rSum": [10.0, 20.0]})
    quiet = conclusion(rows(["equivalent"]), rows(["equivalent", "undecided"]), table)
    assert "No setting was found" in quiet
    loud = conclusion(rows(["equivalent"]), rows(["equivalent", "worsens"]), table)
    assert "under: f: 1 (worsens)" in loud
    assert "from 10.0 (a: 1) to 20.0 (b: 2)" in loud
