"""Numbers that are not finite: wherever it begins, the run is named and nothing of it kept."""

from dataclasses import replace

import numpy as np
import pytest
from finished import finished
from pydantic import ValidationError
from synthetic import synthetic_features

from lib.runs import RunConfig, ScheduleConfig, Store, export_records
from lib.runs.schedules import (
    AnalyticUncertaintyConfig,
    CosineConfig,
    DynamicWeightAverageConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    UncertaintyConfig,
)
from lib.training import TrainingError, train

PAIRS = {
    "variance": ("direction", "sharpness"), "entropy": ("magnitude",), "spread": ("sample",),
}  # fmt: skip
SCHEDULES = [
    None,
    *(ScheduleConfig(signal=s, actuator=actuator) for s in PAIRS for actuator in PAIRS[s]),
    CosineConfig(low=0.05, high=0.2, period=1),
    UncertaintyConfig(rate=0.01),
    AnalyticUncertaintyConfig(softness=1),
    DynamicWeightAverageConfig(softness=1, period=1),
    GradNormConfig(alpha=1, step=0.025),
    IndividualTemperatureConfig(rho=1, step=0.01),
]


def config(**changes):
    small = {"corpus": "synthetic", "train_images": 40, "embedding_dim": 6, "batch_size": 20}
    return RunConfig(**({"epochs": 2} | small | changes))


def poisoned(split, modality, value):
    """Features one of which is not finite, in the middle of a split."""
    features = synthetic_features()
    rows = np.flatnonzero(np.array(features.splits) == split)
    if modality == "text":
        rows = np.flatnonzero(np.isin(features.caption_owner, rows))
    spoilt = getattr(features, modality).copy()
    spoilt[rows if split == "train" else rows[len(rows) // 2], 3] = value
    return replace(features, **{modality: spoilt})


def refuse(configs, features, said):
    store = Store()
    with pytest.raises(TrainingError, match=said) as caught:
        train(configs, store=store, features=features, device="cpu")
    for one in configs:
        assert f"{one.method}, seed {one.seed}: " in str(caught.value)
        assert f"(run {one.run_id})" in str(caught.value)
    assert store.records() == []


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", "epoch 1, step 1"),
        ("val", "epoch 1, its last step"),
        ("test", "embeddings of the test split"),
    ],
)
def test_a_feature_that_is_not_finite(split, modality, value, said):
    refuse([config()], poisoned(split, modality, value), said)


@pytest.mark.tries("bad number")
def test_every_schedule_meets_a_feature_that_is_not_finite():
    configs = [config(schedule=schedule) for schedule in SCHEDULES]
    refuse([*configs, config(learn_temperature=True)], poisoned("train", "text", np.nan), "step 1")


EXTREMES = [
    {"learning_rate": 1e9},
    {"learning_rate": 1e9, "learn_temperature": True},
    {"learning_rate": 1e8, "hidden_layers": 2},
    {"temperature": 1e-9},
    {"temperature": 1e9},
    {"weight_decay": 1e9},
    {"loss": "sigmoid", "loss_constant": None, "learn_bias": True, "learning_rate": 1e9},
    {"loss": "decoupled", "temperature": 1e-9},
    *(
        {"schedule": ScheduleConfig(signal="variance", actuator=actuator, gamma=gamma)}
        for actuator in ("direction", "magnitude", "sharpness", "sample")
        for gamma in (1e38, -1e38)
    ),
]


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("changes", EXTREMES, ids=str)
def test_extreme_settings_give_finite_numbers_or_a_named_error(changes):
    store, one = Store(), config(**changes)
    try:
        (record,) = train([one], store=store, features=synthetic_features(), device="cpu")
    except TrainingError as error:
        assert f"(run {one.run_id})" in str(error)  # noqa: PT017
        assert store.records() == []
    else:
        assert record.finite
        assert 0 <= record.test["t2i_r1"] <= 100


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("value", [0, -1, 1e10, np.nan, np.inf])
@pytest.mark.parametrize("name", ["learning_rate", "temperature"])
def test_what_single_precision_cannot_hold_is_refused_before_training(name, value):
    with pytest.raises(ValidationError, match=name):
        config(**{name: value})


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("place", ["epochs", "steps", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_store_keeps_or_reads_what_is_not_finite(tmp_path, place, value):
    good = finished()
    if place == "test":
        bad = replace(good, test={**good.test, "rsum": value})
    else:
        array = getattr(good, place).copy()
        array[1, 2] = value
        bad = replace(good, **{place: array})
    with pytest.raises(ValueError, match=f"run {good.config.run_id} .* not finite"):
        Store().put(bad)
    assert Store().records() == []
    export_records([bad], tmp_path / "published")
    with pytest.raises(ValueError, match=f"{good.config.run_id} holds numbers that are not"):
        Store(published=tmp_path / "published").records()


def test_a_collapse_is_said(capsys):
    features = synthetic_features()
    same = replace(features, image=np.ones_like(features.image), text=np.ones_like(features.text))
    train([config()], store=Store(), features=same, device="cpu")
    captured = capsys.readouterr()
    assert "fixed, seed 0: the model has collapsed" in captured.out + captured.err
