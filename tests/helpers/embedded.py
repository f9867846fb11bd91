"""A made-up corpus whose features depend on its labels, to measure trained embeddings."""

from types import SimpleNamespace

import numpy as np
from synthetic import features_of

from lib.datasets import Sample
from lib.runs import Store
from lib.training import Lab

SENTINEL = "xyzzy caption that must never be published"
TRAIN, TEST = 40, 60


def samples():
    """Return 60 test images with links, 20 for each of three topics."""
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
    """Return features that depend on topic, image and noise, with two captions per image."""
    rng = np.random.default_rng(0)
    splits = ("train",) * TRAIN + ("val",) * 20 + ("test",) * TEST
    start = np.array([splits.index(split) for split in splits])
    topic = np.eye(3)[(np.arange(len(splits)) - start) % 3]
    hidden = np.concatenate([2 * topic, rng.standard_normal((len(splits), 4))], axis=1)
    return features_of(rng, hidden, 2, splits, noise=0.3, name="embedded {}")


class EmbeddedLab(Lab):
    """A lab that loads this corpus under every name."""

    def __init__(self):
        super().__init__(Store(), features=features(), device="cpu")

    def load_corpus(self, name, on_bad_sample="error"):
        return SimpleNamespace(split=lambda split: samples())
