"""Two processes with one store or cache: each piece of work is done once."""

import os
import signal
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from quick_towers import CountingTower
from small_runs import assert_all_the_same
from synthetic import synthetic_features

from lib.datasets import load_corpus
from lib.encoders import features
from lib.runs import RunConfig, Store
from lib.training import TrainingError, train, trainer

SMALL = {"corpus": "synthetic", "train_images": 20, "embedding_dim": 4, "batch_size": 10}
CONFIGS = [RunConfig(**SMALL, epochs=1, seed=seed) for seed in range(4)]


def start(work):
    """Do ``work`` in a forked process; return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def succeed(*children):
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def note(log, word):
    with log.open("a") as file:
        file.write(f"{word}\n")


def noted(log):
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Let every run be trained alone, slowly, and leave its name in the log that is returned."""
    log, original = tmp_path / "log", trainer.train_stack

    def train_stack(configs, data, sources):
        for config in configs:
            note(log, config.run_id)
        time.sleep(0.3)
        return original(configs, data, sources)

    monkeypatch.setattr(trainer, "train_stack", train_stack)
    monkeypatch.setitem(trainer.STACK_SIZE, "cpu", 1)
    return log


def train_into(store, executor=None):
    features = synthetic_features()
    return train(CONFIGS, store=store, features=features, device="cpu", executor=executor)


def test_two_sweeps_share_their_runs(tmp_path, slow):
    store = Store(folder=tmp_path / "runs")
    succeed(*(start(partial(train_into, store)) for _ in range(2)))
    assert sorted(noted(slow)) == sorted(config.run_id for config in CONFIGS)
    assert_all_the_same(train_into(store), train_into(Store(folder=tmp_path / "alone")))


def test_on_an_executor_too(tmp_path):
    store = Store(folder=tmp_path / "runs")
    succeed(*(start(partial(train_into, store, executor="threads:1")) for _ in range(2)))
    assert len(store.records()) == len(CONFIGS)


@pytest.mark.tries("kill")
def test_what_a_killed_sweep_was_training_is_trained_by_the_other(tmp_path, slow):
    store = Store(folder=tmp_path / "runs")
    first = start(partial(train_into, store))
    while not noted(slow):
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert len(train_into(store)) == len(CONFIGS)
    assert set(noted(slow)) == {config.run_id for config in CONFIGS}


def test_a_run_that_diverges_in_one_process_is_an_error_in_both(tmp_path, slow):
    store = Store(folder=tmp_path / "runs")
    bad = synthetic_features()
    bad.image[:] = np.nan

    def diverge():
        with pytest.raises(TrainingError, match="epoch 1, step 1"):
            train(CONFIGS[:1], store=store, features=bad, device="cpu")

    succeed(start(diverge), start(diverge))
    assert store.records() == []


def test_a_table_is_computed_by_one_of_two(tmp_path, study_home):
    log = tmp_path / "log"

    def compute():
        note(log, "computed")
        time.sleep(0.3)
        return pd.DataFrame({"n": [1, 2]})

    def ask():
        assert Store().table("numbers", {}, compute)["n"].tolist() == [1, 2]

    succeed(start(ask), start(ask), start(ask))
    assert noted(log) == ["computed"]


@pytest.mark.tries("kill")
def test_a_table_whose_maker_was_killed_is_made_by_the_next(tmp_path):
    log = tmp_path / "log"

    def forever():
        note(log, "begun")
        signal.pause()

    child = start(lambda: Store().table("numbers", {}, forever))
    while not noted(log):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert Store().table("numbers", {}, lambda: pd.DataFrame({"n": [7]}))["n"].tolist() == [7]


def test_features_are_computed_by_one_of_two(tmp_path):
    scenes = load_corpus("scenes", train=4, val=2, test=2, image_size=32)
    log = tmp_path / "log"

    class Noting(CountingTower):
        def __call__(self, captions, device):
            note(log, len(captions))
            time.sleep(0.2)
            return super().__call__(captions, device)

    def ask():
        rows = features._caption_rows(scenes, Noting(), torch.device("cpu"))
        assert rows.values.shape == (40, 26)

    succeed(start(ask), start(ask))
    distinct, _ = features.distinct_captions(scenes)
    assert sum(map(int, noted(log))) == len(distinct)
