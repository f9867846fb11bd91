"""Runs whose heads start in closed form: alone, in a stack, trained further, and in the store."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_runs import assert_all_the_same, config

from lib.models import canonical_heads
from lib.runs import CanonicalConfig, NoiseConfig, RunConfig, Store, export_records
from lib.training import Lab
from lib.training.data import TrainingData
from lib.training.history import evaluate

START = CanonicalConfig(image_ridge=0.3, text_ridge=2.0, power=1.5)
WIDE = CanonicalConfig(image_ridge=3.0, text_ridge=0.1, power=0.0)
ALONE = [
    config(start=start, epochs=0, seed=seed, noise=noise)
    for start in (START, WIDE)
    for seed in (0, 1)
    for noise in (None, NoiseConfig(kind="mismatched", rate=0.5))
]


def test_the_record_is_that_of_the_heads_in_closed_form(features, train_small):
    data = TrainingData.of(features, torch.device("cpu"))
    for record in train_small(ALONE):
        run = record.config
        pairs = data.pairs(run)
        image, text, owner = [], [], []
        for row, first, count in zip(
            pairs.image, pairs.first_caption, pairs.caption_count, strict=True
        ):
            text += range(first, first + count)
            owner += [len(image)] * count
            image.append(row)
        heads = canonical_heads(
            data.image[image],
            data.text[text],
            run.embedding_dim,
            owner=torch.tensor(owner),
            **run.start.model_dump(),
        )
        test = heads(data.test.image, data.test.text)
        expected = evaluate(*(e.detach()[None] for e in test), data.test.caption_owner)[0]
        assert list(record.test.values()) == expected.tolist()
        assert record.best_epoch == 1
        assert record.epochs.shape[0] == 1
        assert record.steps.shape[0] == 0


def test_a_run_in_a_stack_equals_the_run_alone(train_small):
    together = train_small(ALONE)
    for index, one in enumerate(ALONE):
        assert_all_the_same(train_small([one], str(index)), [together[index]])


def test_heads_are_trained_from_their_start(train_small):
    """At a rate near 0 the first epoch is the start; at a usual one the loss falls from there."""
    closed, still, trained = train_small(
        [
            config(start=START, epochs=0),
            config(start=START, epochs=3, learning_rate=1e-9),
            config(start=START, epochs=3, learning_rate=1e-2),
        ]
    )
    np.testing.assert_array_equal(still.epochs[:, 1:], np.repeat(closed.epochs[:, 1:], 3, axis=0))
    assert still.test == closed.test
    assert trained.epochs[-1, 0] < trained.epochs[0, 0]
    drawn = train_small([config(epochs=3, learning_rate=1e-2)], "drawn")[0]
    assert trained.epochs[0, 0] < drawn.epochs[0, 0]


def test_a_record_without_steps_is_kept_published_and_read(features, tmp_path):
    lab = Lab(Store(tmp_path / "runs", tmp_path / "none"), features=features, device="cpu")
    kept = lab.train(ALONE)
    export_records(kept, tmp_path / "published")
    for store in (lab.store, Store(tmp_path / "other", tmp_path / "published")):
        assert_all_the_same(kept, [store.get(one) for one in ALONE])
        assert [record.fault() for record in kept] == [""] * len(kept)


def test_methods_are_named():
    assert config(start=START, epochs=0).method == "CCA"
    assert config(start=START).method == "CCA, then fixed"
    assert config(start=START, learn_temperature=True).method == "CCA, then learned τ"


@pytest.mark.tries("bad input")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs = 0 needs a start"),
        ({"start": START, "hidden_layers": 1}, "a start is for linear heads"),
        ({"start": START, "centre": False}, "a start is for linear heads"),
        ({"start": {"image_ridge": 0, "text_ridge": 1}}, "greater than 0"),
    ],
)
def test_options_that_no_start_can_have_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        RunConfig(**options)
