"""A corpus's features on the device that trains, and the draws that a run makes from them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.encoders import Features
from lib.runs import RunConfig
from lib.seeds import generator


@dataclass(frozen=True)
class Gallery:
    """A split to evaluate on: features (N, d_image) and (M, d_text), and each caption's image."""

    image: Tensor
    text: Tensor
    caption_owner: Tensor

    @classmethod
    def of(cls, features: Features, split: str, device: torch.device) -> "Gallery":
        """Take a split of a corpus's features.

        Raises:
            ValueError: The split is empty.
        """
        rows = features.rows(split)
        captions = np.flatnonzero(np.isin(features.caption_owner, rows))
        if not rows.size or not captions.size:
            raise ValueError(f"the corpus's {split!r} split is empty; it is needed to evaluate")
        owner = np.searchsorted(rows, features.caption_owner[captions])
        return cls(
            torch.from_numpy(features.image[rows]).to(device),
            torch.from_numpy(features.text[captions]).to(device),
            torch.from_numpy(owner).to(device),
        )


@dataclass(frozen=True)
class TrainingData:
    """A corpus's features on the device that trains.

    Attributes:
        image, text: (N, d_image) and (M, d_text).
        train_rows: Image rows of the train split that have a caption.
        first_caption, caption_count: (N,) where an image's captions start in ``text``; how many.
        validation, test: The galleries.
        corpus_fingerprint: Of the corpus.
        device: Where the tensors are.
    """

    image: Tensor
    text: Tensor
    train_rows: NDArray[np.int64]
    first_caption: NDArray[np.int64]
    caption_count: NDArray[np.int64]
    validation: Gallery
    test: Gallery
    corpus_fingerprint: str
    device: torch.device

    @classmethod
    def of(cls, features: Features, device: torch.device) -> "TrainingData":
        """Move a corpus's features to a device.

        Raises:
            ValueError: The corpus has no validation or no test split.
        """
        count = np.bincount(features.caption_owner, minlength=len(features.image_ids))
        rows = features.rows("train")
        return cls(
            image=torch.from_numpy(np.array(features.image)).to(device),
            text=torch.from_numpy(np.array(features.text)).to(device),
            train_rows=rows[count[rows] > 0],
            first_caption=np.cumsum(count) - count,
            caption_count=count,
            validation=Gallery.of(features, "val", device),
            test=Gallery.of(features, "test", device),
            corpus_fingerprint=features.corpus_fingerprint,
            device=device,
        )

    def subset(self, config: RunConfig) -> NDArray[np.int64]:
        """Draw the low-data subset of a run: (n,) image rows. A smaller n is a prefix of a larger
        one at the same seed."""
        shuffled = generator(config.seed, "subset").permutation(self.train_rows)
        return shuffled[: config.train_images]

    def epoch(
        self, config: RunConfig, subset: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw an epoch: the image rows in their order, and one caption row for each. An image
        comes once an epoch, so no batch holds two captions of it."""
        order = generator(config.seed, "batch order", epoch).permutation(subset)
        draw = generator(config.seed, "captions", epoch).random(len(order))
        caption = (draw * self.caption_count[order]).astype(np.int64)
        return order, self.first_caption[order] + caption


def batches(count: int, size: int) -> list[slice]:
    """Cut an epoch into batches. A last batch of a single pair has no negatives and gives no
    signal: it is left out, and its pair meets others in the next epoch's order."""
    starts = range(0, count, size)
    return [slice(start, start + size) for start in starts if count - start >= 2]
