"""Replayed schedules: what a run is played, and what it may tell of its source."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from synthetic import synthetic_features

from lib.runs import STEP_COLUMNS, ConstantConfig, ReplayConfig, RunConfig, ScheduleConfig, Store
from lib.training import retrain, train
from lib.training.schedules import surrogate

COLUMN = {name: place for place, name in enumerate(STEP_COLUMNS)}


def config(**changes) -> RunConfig:
    small = {"corpus": "synthetic", "train_images": 50, "embedding_dim": 8, "batch_size": 16}
    return RunConfig(**(small | {"epochs": 3, "learning_rate": 0.01, "temperature": 0.2} | changes))


DIRECTION = ScheduleConfig(signal="variance", actuator="direction", gamma=20.0)
SHARPNESS = ScheduleConfig(signal="variance", actuator="sharpness", target=1.5)


@pytest.fixture(scope="module")
def features():
    return synthetic_features()


@pytest.fixture
def run(features, tmp_path):
    def of(**changes):
        (record,) = train(
            [config(**changes)], store=Store(folder=tmp_path), features=features, device="cpu"
        )
        return record

    return of


@pytest.mark.parametrize("of", [DIRECTION, SHARPNESS])
def test_a_runs_own_path_replayed_is_the_same_run(run, of):
    """A schedule carries no gradient, so that reading and being played it cannot differ."""
    adaptive = run(schedule=of)
    played = run(schedule=ReplayConfig(of=of, whose="own", form="path"))
    np.testing.assert_array_equal(adaptive.steps, played.steps)
    np.testing.assert_array_equal(adaptive.epochs, played.epochs)
    assert adaptive.test == played.test


@pytest.mark.parametrize("of", [DIRECTION, SHARPNESS])
def test_another_seeds_path_is_that_of_the_neighbour(run, of):
    for seed, neighbour in ((0, 1), (1, 0), (4, 5)):
        played = run(seed=seed, schedule=ReplayConfig(of=of, whose="other", form="path"))
        source = run(seed=neighbour, schedule=of)
        for name in ("weight_i2t", "weight_t2i", "temperature"):
            np.testing.assert_array_equal(
                played.steps[:, COLUMN[name]], source.steps[:, COLUMN[name]]
            )
        assert not np.array_equal(played.steps[:, 0], source.steps[:, 0])


def test_the_mean_is_held(run):
    adaptive = run(schedule=SHARPNESS)
    held = run(schedule=ReplayConfig(of=SHARPNESS, whose="own", form="mean"))
    tau = adaptive.steps[:, COLUMN["temperature"]].astype(float)
    expected = np.prod(tau) ** (1 / len(tau))
    np.testing.assert_allclose(held.steps[:, COLUMN["temperature"]], expected, rtol=1e-5)
    assert np.ptp(tau) > 0.01  # Or this test would hold for a path too.


def test_a_random_path_keeps_mean_and_spread_and_sums_to_two(run):
    adaptive = run(schedule=DIRECTION)
    drawn = run(schedule=ReplayConfig(of=DIRECTION, whose="own", form="surrogate"))
    weights = [r.steps[:, [COLUMN["weight_i2t"], COLUMN["weight_t2i"]]] for r in (adaptive, drawn)]
    np.testing.assert_allclose(weights[1].sum(axis=1), 2, atol=1e-5)
    assert weights[1].mean() == pytest.approx(weights[0].mean(), abs=1e-5)
    assert weights[1][:, 0].std() == pytest.approx(weights[0][:, 0].std(), rel=1e-3)
    assert not np.allclose(*weights, atol=1e-3)


def test_constant_weights_of_one_are_the_fixed_loss(run):
    fixed, ones, half = (
        run(),
        run(schedule=ConstantConfig(weight_i2t=1.0)),
        run(schedule=ConstantConfig(weight_i2t=0.5)),
    )
    np.testing.assert_array_equal(fixed.steps, ones.steps)
    assert set(half.steps[:, COLUMN["weight_i2t"]]) == {0.5}
    assert set(half.steps[:, COLUMN["weight_t2i"]]) == {1.5}


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_a_surrogate_keeps_mean_variance_and_autocorrelation(values, seed):
    path = np.array(values)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(path) // 2 + 1)
    drawn = surrogate(path, phases)

    def autocorrelation(x):
        centred = x - x.mean()
        return np.array([(centred * np.roll(centred, lag)).mean() for lag in range(len(x))])

    assert drawn.mean() == pytest.approx(path.mean(), abs=1e-9)
    np.testing.assert_allclose(autocorrelation(drawn), autocorrelation(path), atol=1e-8)


def test_what_is_not_recorded_cannot_be_replayed():
    sample = ScheduleConfig(signal="variance", actuator="sample")
    with pytest.raises(ValidationError, match="not recorded"):
        ReplayConfig(of=sample, whose="own", form="path")


def test_a_replay_under_a_learned_temperature_is_refused():
    replay = ReplayConfig(of=SHARPNESS, whose="own", form="path")
    with pytest.raises(ValidationError, match="either learned or set"):
        config(learn_temperature=True, schedule=replay)


def test_a_field_more_keeps_the_names_of_runs():
    """Names come from what differs from the defaults, and differ wherever those do."""
    assert config().run_id == config(noise=None, schedule=None, centre=True).run_id
    others = [
        config(seed=1),
        config(centre=False),
        config(schedule=ConstantConfig(weight_i2t=1.0)),
        config(schedule=DIRECTION),
        config(schedule=ReplayConfig(of=DIRECTION, whose="own", form="path")),
        config(schedule=ReplayConfig(of=DIRECTION, whose="other", form="path")),
        config(schedule=ReplayConfig(of=DIRECTION, whose="other", form="mean")),
        config(noise={"kind": "mismatched", "rate": 0.2}),
        config(noise={"kind": "captions", "rate": 0.2}),
    ]
    assert len({one.run_id for one in [config(), *others]}) == len(others) + 1


def test_heads_trained_again_are_those_of_the_record(features, tmp_path):
    from lib.metrics import retrieval_metrics_from_embeddings

    store = Store(folder=tmp_path)
    configs = [
        config(),
        config(seed=1, schedule=ReplayConfig(of=SHARPNESS, whose="other", form="path")),
        config(text_hidden_layers=1, hidden_features=6),
    ]
    records = {r.config: r for r in train(configs, store=store, features=features, device="cpu")}
    seen = []
    for one, encoder, data in retrain(configs, store=store, features=features, device="cpu"):
        embedded = encoder(data.test.image, data.test.text)
        norms = torch.cat([embedded.image, embedded.text]).norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        measured = retrieval_metrics_from_embeddings(*embedded, data.test.caption_owner)
        assert float(measured.rsum) == pytest.approx(records[one].test["rsum"], abs=1e-6)
        seen.append(one)
    assert sorted(c.run_id for c in seen) == sorted(c.run_id for c in configs)
