"""The noisy versions of the captions and images that runs train on."""

from dataclasses import replace
from typing import Any

import numpy as np

from lib.datasets import Corpus
from lib.encoders import Features, extract_captions, extract_features, extract_images
from lib.noise.corpus import Noise, corrupt

TRAINING_SEVERITY = 3
"""Severity of the noise in training captions and images.

>>> TRAINING_SEVERITY
3
"""


def training_features(
    corpus: Corpus,
    kind: str,
    image_tower: str,
    text_tower: str,
    device: str = "auto",
    clean: Features | None = None,
) -> Features:
    """Return a corpus's features with noise in every caption, or every image, of the train split.

    A kind of noise is drawn for each caption or image, at :data:`lib.noise.TRAINING_SEVERITY`. The
    noise is the same for all runs; a run's seed chooses the noisy captions or images to train on.

    Args:
        corpus: The clean corpus.
        kind: ``"captions"`` or ``"images"``.
        image_tower: As for :func:`lib.encoders.extract_features`.
        text_tower: As for :func:`lib.encoders.extract_features`.
        device: As for :func:`lib.encoders.extract_features`.
        clean: The clean corpus's features, if they are already loaded.

    Returns:
        Features with the rows of the clean ones; rows without noise are equal to the clean rows.

    Raises:
        ValueError: The kind is unknown, or the device cannot be used.
        TowerError: A tower cannot be loaded.

    >>> from lib.datasets import load_corpus
    >>> from lib.encoders import extract_features
    >>> corpus = load_corpus("scenes", train=2, val=1, test=1, image_size=32)
    >>> towers = "efficientnet-lite0@32", "minilm"
    >>> noisy = training_features(corpus, "captions", *towers, device="cpu")
    >>> clean = extract_features(corpus, *towers, device="cpu")
    >>> np.array_equal(noisy.image, clean.image), np.array_equal(noisy.text, clean.text)
    (True, False)
    """
    if kind not in ("captions", "images"):
        raise ValueError(f"kind = {kind!r}; use 'captions' or 'images'")
    if clean is None:
        clean = extract_features(corpus, image_tower, text_tower, device)
    noisy = corrupt(corpus, Noise(kind, TRAINING_SEVERITY), ["train"])
    train = np.array(clean.splits) == "train"
    if kind == "captions":
        rows = extract_captions(noisy, text_tower, device)
        name, replaced = "text", train[clean.caption_owner]
    else:
        rows = extract_images(noisy, image_tower, device)
        name, replaced = "image", train
    changes: dict[str, Any] = {"fingerprint": f"{clean.fingerprint} with {rows.fingerprint}"}
    changes[name] = np.array(getattr(clean, name))
    changes[name][replaced] = rows.values
    return replace(clean, **changes)
