"""Splits, low-data subsets, loading by name."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from lib.datasets import CorpusError, Sample, Scenes, load_corpus
from lib.datasets.corpus import fingerprint_of
from lib.encoders import Features
from lib.runs import RunConfig
from lib.training.data import TrainingData


@pytest.fixture(scope="module")
def corpus():
    return Scenes(train=30, val=5, test=5, image_size=32)


def test_splits_have_their_samples_and_an_unknown_one_is_refused(corpus):
    assert [len(corpus.split(name)) for name in ("train", "val", "test", "none")] == [30, 5, 5, 0]
    with pytest.raises(CorpusError, match="split 'dev' is unknown; use one of train, val, test"):
        corpus.split("dev")


def test_a_smaller_subset_is_the_beginning_of_a_larger_one(corpus):
    whole = corpus.subset(30, seed=3)
    assert sorted(s.id for s in whole) == sorted(s.id for s in corpus.split("train"))
    for n in (0, 1, 7, 29):
        assert corpus.subset(n, seed=3) == whole[:n]


def test_a_subset_depends_only_on_the_seed(corpus):
    assert corpus.subset(10, 0) == Scenes(train=30, val=5, test=5, image_size=32).subset(10, 0)
    assert corpus.subset(10, 0) != corpus.subset(10, 1)
    # Every image can be drawn: 40 draws of a third of them miss none.
    drawn = {sample.id for seed in range(40) for sample in corpus.subset(10, seed)}
    assert len(drawn) == 30


@pytest.mark.parametrize(("n", "seed"), [(31, 0), (-1, 0), (3, -1)])
def test_impossible_subsets_are_refused(corpus, n, seed):
    with pytest.raises(CorpusError, match=f"n = {n} images asked for|seed = {seed} is negative"):
        corpus.subset(n, seed)


def test_a_run_trains_on_the_subset_of_its_seed(corpus):
    samples = corpus.samples
    owner = np.repeat(np.arange(len(samples)), 5)
    features = Features(
        image=np.zeros((len(samples), 2), np.float32),
        text=np.zeros((len(owner), 2), np.float32),
        caption_owner=owner.astype(np.int64),
        image_ids=tuple(sample.id for sample in samples),
        splits=tuple(sample.split for sample in samples),
        fingerprint="",
        corpus_fingerprint=corpus.fingerprint,
    )
    data = TrainingData.of(features, torch.device("cpu"))
    rows = data.pairs(RunConfig(train_images=12, seed=5)).image
    assert [samples[row].id for row in rows] == [s.id for s in corpus.subset(12, seed=5)]


def test_the_fingerprint_depends_on_where_each_text_ends():
    def of(*captions):
        return fingerprint_of([], [Sample("a", captions, "train")])

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("abc", ""), of("c", "ab")}) == 5
    assert fingerprint_of([], [Sample("a", (), "train")]) != fingerprint_of(
        [], [Sample("a", (), "val")]
    )


def test_corpora_load_by_name_with_their_options():
    assert isinstance(load_corpus("scenes", train=1, val=0, test=0), Scenes)
    with pytest.raises(CorpusError, match=r"'scene' is unknown \(did you mean 'scenes'\?\); there"):
        load_corpus("scene")
    with pytest.raises(CorpusError, match=r"option 'on_bad_sampel' \(did you mean 'on_bad_sample"):
        load_corpus("flickr8k", on_bad_sampel="skip")


def test_samples_and_corpora_can_be_pickled(corpus):
    again = pickle.loads(pickle.dumps(corpus))
    assert again.samples == corpus.samples
    assert {*again.samples} == {*corpus.samples}
    sample = corpus.samples[3]
    assert np.array_equal(again.load_image(sample), corpus.load_image(sample))


def test_importing_the_corpora_imports_no_torch():
    code = "import sys, lib.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
