"""How embeddings lie and cluster, measured in their own space, run by run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]
from torch import Tensor

from lib.chapters.embeddings.topics import image_labels, lexicon_digest
from lib.datasets import Sample
from lib.metrics import (
    alignment,
    hubness,
    modality_gap,
    neighbour_purity,
    relative_alignment,
    uniformity,
)
from lib.runs import RunConfig
from lib.training import Lab

NEIGHBOURS = 10
"""k of the k-occurrence and of neighbourhoods, as in Radovanović et al. (2010)."""

MEASURES: Mapping[str, str] = {
    "alignment": "alignment of pairs",
    "silhouette": "silhouette, images with captions",
    "relative_alignment": "relative alignment",
    "modality_gap": "modality gap",
    "uniformity_image": "uniformity, images",
    "uniformity_text": "uniformity, captions",
    "hubness_text": "hubness of captions, image queries",
    "hubness_image": "hubness of images, caption queries",
    "silhouette_image": "silhouette, images",
    "silhouette_text": "silhouette, captions",
    "purity_image": "purity, image → images",
    "purity_text": "purity, caption → captions",
    "purity_i2t": "purity, image → captions",
    "purity_t2i": "purity, caption → images",
}
"""Measures of a run and how a table heads them."""


def measure_embeddings(
    image: Tensor, text: Tensor, caption_owner: Tensor, labels: Sequence[str | None]
) -> dict[str, float]:
    """Return :data:`MEASURES` of one run's embeddings.

    Alignment and hubness take every caption. The other measures take the first caption per image,
    since captions of one image would be neighbours of each other.

    Args:
        image: (N, d), of unit length.
        text: (M, d), of unit length.
        caption_owner: (M,) the image row of each caption.
        labels: N labels, None for an image that is left out of measures with labels.

    Raises:
        ValueError: Fewer than two labels, or too few labelled images for a neighbourhood.
    """
    image, text = image.double(), text.double()
    rows, first = labelled_pairs(caption_owner, labels)
    names, codes = np.unique([str(labels[row]) for row in rows], return_inverse=True)
    if len(names) < 2 or len(rows) <= NEIGHBOURS:
        raise ValueError(
            f"clusters need two labels or more and more than {NEIGHBOURS} labelled images; there "
            f"are {len(rows)} images with {len(names)} labels"
        )
    pairs = image[caption_owner], text
    first_captions = np.unique(caption_owner.numpy(), return_index=True)[1]
    scores = image @ text.T
    v, t = image[rows], text[first]
    label = torch.from_numpy(codes)

    def purity(similarity: Tensor, within: bool) -> Tensor:
        return neighbour_purity(similarity, label, label, NEIGHBOURS, exclude_self=within)

    measured: dict[str, Any] = {
        "alignment": alignment(*pairs),
        "silhouette": _silhouette(torch.cat([v, t]), np.concatenate([codes, codes])),
        "relative_alignment": relative_alignment(*pairs),
        "modality_gap": modality_gap(image, text),
        "uniformity_image": uniformity(image),
        "uniformity_text": uniformity(text[first_captions]),
        "hubness_text": hubness(scores, NEIGHBOURS),
        "hubness_image": hubness(scores.T, NEIGHBOURS),
        "silhouette_image": _silhouette(v, codes),
        "silhouette_text": _silhouette(t, codes),
        "purity_image": purity(v @ v.T, True),
        "purity_text": purity(t @ t.T, True),
        "purity_i2t": purity(v @ t.T, False),
        "purity_t2i": purity(t @ v.T, False),
    }
    return {name: float(measured[name]) for name in MEASURES}


def labelled_pairs(
    caption_owner: Tensor, labels: Sequence[str | None]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the images that have a label and a caption, and of their first captions.

    >>> labelled_pairs(torch.tensor([0, 0, 2, 2, 3]), ["a", "b", "a", None])
    (array([0, 2]), array([0, 2]))
    """
    rows, first = np.unique(caption_owner.cpu().numpy(), return_index=True)
    known = np.array([labels[row] is not None for row in rows], dtype=bool)
    return rows[known], first[known]


def gallery_samples(lab: Lab, config: RunConfig) -> tuple[Sample, ...]:
    """Load the test images of a run's corpus, in the order of its test gallery."""
    return lab.load_corpus(config.corpus, config.on_bad_sample).split("test")


def topic_table(lab: Lab, config: RunConfig) -> pd.DataFrame:
    """Return how many test images have each label: ``topic`` ("" for none) and ``images``.

    The table is kept in the store, so that it can be shown without the corpus.
    """

    def compute() -> pd.DataFrame:
        labels = pd.Series(image_labels(gallery_samples(lab, config)), name="topic")
        return labels.fillna("").value_counts().rename("images").reset_index()

    return lab.store.table("topics", _labels_key(config), compute)


def measure_table(lab: Lab, chosen: Mapping[str, RunConfig], seeds: Sequence[int]) -> pd.DataFrame:
    """Train runs again and measure their test embeddings.

    The table is kept in the store, so that it can be shown without the corpus and without training.

    Args:
        lab: Where to train, and where the table is kept.
        chosen: Method to configuration, all on one corpus.
        seeds: On which each is run.

    Returns:
        One row per run: ``method``, ``seed`` and :data:`MEASURES`.
    """
    names = {c.with_seed(seed): (name, seed) for name, c in chosen.items() for seed in seeds}
    any_run = next(iter(names))

    def compute() -> pd.DataFrame:
        labels = image_labels(gallery_samples(lab, any_run))
        measured = {}
        for config, encoder, data in lab.retrain(list(names)):
            image, text = (side.cpu() for side in encoder(data.test.image, data.test.text))
            owner = data.test.caption_owner.cpu()
            measured[config] = measure_embeddings(image, text, owner, labels)
        return pd.DataFrame(
            [
                {"method": method, "seed": seed, **measured[config]}
                for config, (method, seed) in names.items()
            ]
        )

    runs = {config.run_id: method for config, (method, _) in names.items()}
    key = {"runs": runs, "k": NEIGHBOURS, **_labels_key(any_run)}
    return lab.store.table("embedding-measures", key, compute)


def _labels_key(config: RunConfig) -> dict[str, Any]:
    return {
        "corpus": config.corpus,
        "on_bad_sample": config.on_bad_sample,
        "lexicon": lexicon_digest(),
    }


def _silhouette(points: Tensor, codes: NDArray[np.int64]) -> float:
    return float(silhouette_score(points.numpy(), codes, metric="cosine"))
