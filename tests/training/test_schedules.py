"""Replayed schedules against the runs that they come from."""

from functools import partial

import numpy as np
import pytest
import small_runs
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_runs import fresh, schedule

from lib.metrics import retrieval_metrics_from_embeddings
from lib.runs import STEP_COLUMNS, ConstantConfig, ReplayConfig
from lib.training import retrain
from lib.training.schedules import surrogate

COLUMN = {name: index for index, name in enumerate(STEP_COLUMNS)}
config = partial(small_runs.config, epochs=3)
DIRECTION = schedule("variance", "direction", gamma=20.0)
SHARPNESS = schedule("variance", "sharpness", target=1.5)


@pytest.fixture
def run(train_small):
    return lambda **changes: train_small([config(**changes)])[0]


@pytest.mark.parametrize("of", [DIRECTION, SHARPNESS])
def test_a_runs_own_path_replayed_is_the_same_run(run, of):
    """A schedule carries no gradient, so a scheduler and a replay of it cannot differ."""
    adaptive = run(schedule=of)
    played = run(schedule=ReplayConfig(of=of, whose="own", form="path"))
    np.testing.assert_array_equal(adaptive.steps, played.steps)
    np.testing.assert_array_equal(adaptive.epochs, played.epochs)
    assert adaptive.test == played.test


@pytest.mark.parametrize("of", [DIRECTION, SHARPNESS])
def test_another_seeds_path_is_that_of_the_neighbour(run, of):
    columns = [COLUMN[name] for name in ("weight_i2t", "weight_t2i", "temperature")]
    for seed, neighbour in ((0, 1), (1, 0), (4, 5)):
        played = run(seed=seed, schedule=ReplayConfig(of=of, whose="other", form="path"))
        source = run(seed=neighbour, schedule=of)
        np.testing.assert_array_equal(played.steps[:, columns], source.steps[:, columns])
        assert not np.array_equal(played.steps[:, 0], source.steps[:, 0])


def test_the_mean_is_held(run):
    adaptive = run(schedule=SHARPNESS)
    held = run(schedule=ReplayConfig(of=SHARPNESS, whose="own", form="mean"))
    tau = adaptive.steps[:, COLUMN["temperature"]].astype(float)
    expected = np.prod(tau) ** (1 / len(tau))
    np.testing.assert_allclose(held.steps[:, COLUMN["temperature"]], expected, rtol=1e-5)
    assert np.ptp(tau) > 0.01  # Otherwise a path would pass too.


def test_a_random_path_keeps_mean_and_spread_and_sums_to_two(run):
    adaptive = run(schedule=DIRECTION)
    drawn = run(schedule=ReplayConfig(of=DIRECTION, whose="own", form="surrogate"))
    weights = [r.steps[:, [COLUMN["weight_i2t"], COLUMN["weight_t2i"]]] for r in (adaptive, drawn)]
    np.testing.assert_allclose(weights[1].sum(axis=1), 2, atol=1e-5)
    assert weights[1].mean() == pytest.approx(weights[0].mean(), abs=1e-5)
    assert weights[1][:, 0].std() == pytest.approx(weights[0][:, 0].std(), rel=1e-3)
    assert not np.allclose(*weights, atol=1e-3)


def test_constant_weights_of_one_are_the_fixed_loss(run):
    ones, half = (run(schedule=ConstantConfig(weight_i2t=weight)) for weight in (1.0, 0.5))
    np.testing.assert_array_equal(run().steps, ones.steps)
    assert set(half.steps[:, COLUMN["weight_i2t"]]) == {0.5}
    assert set(half.steps[:, COLUMN["weight_t2i"]]) == {1.5}


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40), st.integers(0, 2**32 - 1))
def test_a_surrogate_keeps_mean_variance_and_autocorrelation(values, seed):
    path = np.array(values)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(path) // 2 + 1)
    drawn = surrogate(path, phases)

    def autocorrelation(x):
        centred = x - x.mean()
        return np.array([(centred * np.roll(centred, lag)).mean() for lag in range(len(x))])

    assert drawn.mean() == pytest.approx(path.mean(), abs=1e-9)
    np.testing.assert_allclose(autocorrelation(drawn), autocorrelation(path), atol=1e-8)


def test_replays_that_cannot_be_are_refused():
    with pytest.raises(ValidationError, match="not recorded"):
        ReplayConfig(of=schedule("variance", "sample"), whose="own", form="path")
    replay = ReplayConfig(of=SHARPNESS, whose="own", form="path")
    with pytest.raises(ValidationError, match="either learned or set"):
        config(learn_temperature=True, schedule=replay)


def test_new_fields_keep_the_names_of_runs():
    """Names come from what differs from the defaults, and differ if that does."""
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


def test_heads_trained_again_are_those_of_the_record(features, tmp_path, train_small):
    configs = [
        config(),
        config(seed=1, schedule=ReplayConfig(of=SHARPNESS, whose="other", form="path")),
        config(text_hidden_layers=1, hidden_features=6),
    ]
    records = {record.config: record for record in train_small(configs)}
    options = {"store": fresh(tmp_path, "runs"), "features": features, "device": "cpu"}
    seen = []
    for one, encoder, data in retrain(configs, **options):
        embedded = encoder(data.test.image, data.test.text)
        norms = torch.cat([embedded.image, embedded.text]).norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        measured = retrieval_metrics_from_embeddings(*embedded, data.test.caption_owner)
        assert float(measured.rsum) == pytest.approx(records[one].test["rsum"], abs=1e-6)
        seen.append(one)
    assert sorted(c.run_id for c in seen) == sorted(c.run_id for c in configs)
