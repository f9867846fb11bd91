"""Work that is interrupted at random moments and started again ends in the same result.

``make soak`` does many more rounds than the suite.
"""

import json
import os
import signal
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from disturbances import KINDS, contents, disturb, finish, undisturbed
from download_site import SMALL, Site, flickr8k_files, server_of
from notebook_maker import write_notebook
from quick_towers import CountingTower, colour_tower
from synthetic import synthetic_features

from lib.datasets import load_corpus
from lib.datasets.archives import extract
from lib.datasets.flickr8k_download import download_flickr8k
from lib.encoders import features
from lib.runs import RunConfig, ScheduleConfig, Store, TowersConfig
from lib.study.execution import execute
from lib.training import towers, train, trainer
from lib.training.towers import run as one_run

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "4"))
"""Rounds per kind of work; the kinds of disturbance alternate."""
SEED = int(os.environ.get("SOAK_SEED", "0"))
CPU = torch.device("cpu")
LOCKS = (".lock", "mutex", "in-use")


def soak(tmp_path, tried, work, outcome, rounds=ROUNDS, kinds=KINDS):
    """Disturb ``work`` in each round; compare its outcome with that of undisturbed work."""
    reference = tmp_path / "reference"
    moments, seconds = undisturbed(partial(work, reference), reference)
    expected = outcome(reference)
    assert expected
    struck = 0
    for number in range(rounds):
        home, kind = tmp_path / f"round{number}", kinds[number % len(kinds)]
        begin = partial(work, home)
        for again in range(1 + number % 2):
            hit = disturb(begin, home, kind, moments, seconds, SEED + 1000 * number + again)
            struck += hit
            if hit:
                tried("full disk" if kind == "full disk" else "kill")
        finish(begin, home)
        assert outcome(home) == expected, f"round {number}, {kind}"
        left = [p for p in home.rglob("*") if "partial" in p.name or p.name.startswith(".")]
        assert left == [], f"round {number}, {kind}"
    assert struck, "no round was hit"


# Extraction and download.


def test_extraction(tmp_path, tried):
    archive = tmp_path / "a.zip"
    archive.write_bytes(flickr8k_files()["/Flickr8k_Dataset.zip"])

    def work(home):
        if not (home / "corpus").exists():
            extract(archive, home / "corpus")

    soak(tmp_path, tried, work, contents)


@pytest.fixture
def mirror():
    """The address of a server in a process of its own, which knows Range."""
    site = Site()
    site.files = flickr8k_files()
    server, address = server_of(site)
    child = os.fork()
    if child == 0:
        server.serve_forever()
    server.socket.close()
    yield address
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_download(tmp_path, mirror, tried, monkeypatch):
    monkeypatch.setattr("lib.datasets.download.CHUNK", 4096)

    def work(home):
        download_flickr8k(home / "flickr8k", mirror, SMALL)

    soak(tmp_path, tried, work, partial(contents, but=LOCKS))


# Features.


@pytest.fixture(scope="module")
def scenes():
    return load_corpus("scenes", train=10, val=3, test=3, image_size=32)


def test_feature_caching(tmp_path, scenes, tried, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 4)
    monkeypatch.setattr(features, "BATCH", 2)

    def work(home):
        features._image_rows(scenes, colour_tower(), CPU)
        features._caption_rows(scenes, CountingTower(), CPU)

    soak(tmp_path, tried, work, partial(contents, but=("lock",)))


# Training.


def numbers(home):
    """The numbers of a store's records, without times and machines."""
    return {
        record.config.run_id: (
            record.steps.tobytes(),
            record.epochs.tobytes(),
            tuple(record.test.items()),
            record.best_epoch,
        )
        for record in Store(folder=home / "runs", published=home / "none").records()
    }


def files_of(home):
    """The files of records, without leases, since one of a killed holder stays until the next."""
    return sorted(p.name for p in home.glob("runs/??/*"))


def test_training(tmp_path, tried, monkeypatch):
    monkeypatch.setitem(trainer.STACK_SIZE, "cpu", 1)
    small = {"corpus": "synthetic", "train_images": 20, "embedding_dim": 4, "batch_size": 10}
    schedule = ScheduleConfig(signal="variance", actuator="direction", gamma=5.0)
    configs = [
        RunConfig(**small, epochs=2, seed=seed, schedule=chosen)
        for seed in range(3)
        for chosen in (None, schedule)
    ]
    table = pd.DataFrame({"n": np.arange(2000), "share": np.arange(2000) / 7})

    def work(home):
        train(configs, features=synthetic_features(), device="cpu")
        Store().table("numbers", {"of": "them"}, lambda: table)

    def outcome(home):
        return numbers(home), files_of(home), contents(home / "tables")

    soak(tmp_path, tried, work, outcome)


def test_end_to_end_training(tmp_path, scenes, tried, monkeypatch):
    material = towers.load_inputs(scenes, "from scratch", "resnet18@32", "gru", CPU)
    monkeypatch.setattr(one_run, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(trainer, "load_corpus", lambda *_, **__: scenes)
    monkeypatch.setattr(trainer, "load_inputs", lambda *_: material)
    config = RunConfig(
        image_tower="resnet18@32",
        text_tower="gru",
        towers=TowersConfig(trained="from scratch", augmentation="crop and flip"),
        train_images=8,
        batch_size=4,
        epochs=2,
        embedding_dim=8,
    )

    def work(home):
        train([config], device="cpu")

    def outcome(home):
        return numbers(home), files_of(home), sorted(p.name for p in home.glob("checkpoints/*"))

    soak(tmp_path, tried, work, outcome, rounds=max(2, ROUNDS // 2))


# Notebooks.


def test_notebook_execution(tmp_path, tried):
    source = write_notebook(tmp_path / "corpus.ipynb", "epochs: int = 1  # one", "print(epochs)")

    def work(home):
        execute(source, home / "results" / "corpus.ipynb", {"epochs": 3})

    def outcome(home):
        text = (home / "results" / "corpus.ipynb").read_text()
        assert json.loads(text)["cells"]
        return text, sorted(path.name for path in (home / "results").iterdir())

    # A notebook's failed copy is kept beside it until it succeeds; the next success removes it.
    soak(tmp_path, tried, work, outcome, rounds=max(1, ROUNDS // 4))
