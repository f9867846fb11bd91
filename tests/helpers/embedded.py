"""A made-up corpus whose features tell its labels, for what measures trained embeddings."""

from types import SimpleNamespace

import numpy as np

from lib.datasets import Sample
from lib.encoders import Features
from lib.runs import Store
from lib.training import Lab

SENTINEL = "xyzzy caption that must never be published"
TRAIN, TEST = 40, 60


def samples():
    """60 test images of three topics, each a third; every tenth has none. Links for all."""
    topics = ("sand", "snow", "water")
    return tuple(
        Sample(
            f"{row:03d}_image.jpg",
            (f"{SENTINEL} {row}", f"{SENTINEL} {row} again"),
            "test",
            {"background": topics[row % 3]},
            f"https://www.example.org/{row}",
        )
        for row in range(TEST)
    )


def features():
    """Features of the topic, of the image, and of noise; two captions an image."""
    rng = np.random.default_rng(0)
    count = TRAIN + 20 + TEST
    splits = ("train",) * TRAIN + ("val",) * 20 + ("test",) * TEST
    start = np.array([splits.index(split) for split in splits])
    topic = np.eye(3)[(np.arange(count) - start) % 3]
    hidden = np.concatenate([2 * topic, rng.standard_normal((count, 4))], axis=1)
    owner = np.repeat(np.arange(count), 2)
    image = hidden @ rng.standard_normal((7, 12)) + 0.3 * rng.standard_normal((count, 12))
    text = hidden[owner] @ rng.standard_normal((7, 10))
    text += 0.3 * rng.standard_normal(text.shape)
    return Features(
        image=image.astype(np.float32),
        text=text.astype(np.float32),
        caption_owner=owner.astype(np.int64),
        image_ids=tuple(f"image{row}" for row in range(count)),
        splits=splits,
        fingerprint="embedded features",
        corpus_fingerprint="embedded corpus",
    )


class EmbeddedLab(Lab):
    """A lab whose every corpus is this one."""

    def __init__(self):
        super().__init__(Store(), features=features(), device="cpu")

    def load_corpus(self, name, on_bad_sample="error"):
        return SimpleNamespace(split=lambda split: samples())
