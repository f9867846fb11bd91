"""Noise in the training pairs: which pairs, how many, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.runs import NoiseConfig, RunConfig
from lib.training.data import TrainingData

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(features):
    noisy = replace(features, image=features.image + 1000, text=features.text + 1000)
    return TrainingData.of(features, CPU, noisy)


def config(kind=None, rate=0.0, **changes) -> RunConfig:
    noise = None if kind is None else NoiseConfig(kind=kind, rate=rate)
    return RunConfig(**({"train_images": 50, "batch_size": 16, "noise": noise} | changes))


def owners(features, pairs):
    """The image that each pair's captions truly belong to."""
    return features.caption_owner[pairs.first_caption]


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_mismatched_pairs_have_captions_of_another_image_of_the_subset(data, features, rate):
    pairs = data.pairs(config("mismatched", rate))
    wrong = owners(features, pairs) != pairs.image
    assert wrong.sum() == round(rate * 50)
    np.testing.assert_array_equal(np.sort(owners(features, pairs)), np.sort(pairs.image))
    np.testing.assert_array_equal(pairs.image, data.pairs(config()).image)


def test_a_lower_rate_is_a_part_of_a_higher_one(data, features):
    for kind in ("mismatched", "captions", "images"):
        low, high = (data.pairs(config(kind, rate)) for rate in (0.3, 0.7))
        clean = data.pairs(config())

        def changed(pairs, clean=clean):
            return (
                (owners(features, pairs) != clean.image)
                | (pairs.image != clean.image)
                | pairs.noisy_caption[pairs.first_caption]
            )

        assert changed(low).any()
        assert (changed(high) | ~changed(low)).all()
        assert changed(high).sum() > changed(low).sum()


def test_noisy_images_and_captions_come_from_the_noisy_version(data, features):
    count, captions = len(features.image_ids), len(features.caption_owner)
    for rate in (0.4, 1.0):
        one = config("images", rate)
        images, texts = data.epoch(one, data.pairs(one), 1)
        share = (images >= count).mean()
        assert share == 1 if rate == 1 else 0.1 < share < 0.8
        assert (texts < captions).all()
        np.testing.assert_array_equal(features.caption_owner[texts], images % count)
        assert (data.image[torch.from_numpy(images[images >= count])] > 500).all()

        one = config("captions", rate)
        images, texts = data.epoch(one, data.pairs(one), 1)
        share = (texts >= captions).mean()
        assert share == 1 if rate == 1 else 0.1 < share < 0.8
        assert (images < count).all()
        np.testing.assert_array_equal(features.caption_owner[texts % captions], images)
        assert (data.text[torch.from_numpy(texts[texts >= captions])] > 500).all()


def test_order_and_drawn_captions_are_those_of_the_clean_run(data, features):
    clean = config()
    expected = data.epoch(clean, data.pairs(clean), 2)
    for kind in ("captions", "images"):
        one = config(kind, 0.5)
        images, texts = data.epoch(one, data.pairs(one), 2)
        np.testing.assert_array_equal(images % len(features.image_ids), expected[0])
        np.testing.assert_array_equal(texts % len(features.caption_owner), expected[1])


def test_seeds_draw_different_noise_and_validation_stays_clean(data, features):
    one, other = (data.pairs(config("captions", 0.5, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one.noisy_caption, other.noisy_caption)
    for gallery in (data.validation, data.test):
        assert (gallery.image < 500).all()
        assert (gallery.text < 500).all()


def test_all_captions_are_those_that_an_epoch_can_draw(data):
    one = config("captions", 0.5)
    pairs = data.pairs(one)
    every = set(pairs.all_captions().tolist())
    drawn = set()
    for epoch in range(1, 40):
        drawn |= set(data.epoch(one, pairs, epoch)[1].tolist())
    assert drawn == every
