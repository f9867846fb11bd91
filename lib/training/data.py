"""A corpus's features on the training device, and the draws that a run makes from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.encoders import Features
from lib.runs import RunConfig
from lib.utils.seeds import generator


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
        arrays = features.image[rows], features.text[captions], owner
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


@dataclass(frozen=True)
class Pairs:
    """What a run trains on: n images, and the captions that each image is paired with.

    Attributes:
        image: (n,) rows of :attr:`TrainingData.image`.
        first_caption, caption_count: (n,) first caption and number of captions of each image.
        noisy_caption: (M,) whether a caption is replaced by its noisy version.
    """

    image: NDArray[np.int64]
    first_caption: NDArray[np.int64]
    caption_count: NDArray[np.int64]
    noisy_caption: NDArray[np.bool_]

    def places(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the position among the n images, 0 to n - 1, of rows of images."""
        order = np.argsort(self.image)
        return order[np.searchsorted(self.image, images, sorter=order)]

    def caption_rows(self, captions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of :attr:`TrainingData.text` to read for captions of the corpus."""
        return captions + len(self.noisy_caption) * self.noisy_caption[captions]

    def all_captions(self) -> NDArray[np.int64]:
        """Return the rows of every caption of every pair."""
        spans = zip(self.first_caption, self.caption_count, strict=True)
        return self.caption_rows(np.concatenate([np.arange(a, a + count) for a, count in spans]))


@dataclass(frozen=True)
class TrainingData:
    """A corpus's features on the training device.

    Attributes:
        image, text: (N, d_image) and (M, d_text); noisy versions, if any, follow as another N and M
            rows.
        train_rows: Image rows of the train split that have a caption.
        first_caption, caption_count: (N,) first row in ``text`` and number of an image's captions.
        validation, test: The galleries, always clean.
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
    def of(
        cls, features: Features, device: torch.device, noisy: Features | None = None
    ) -> "TrainingData":
        """Move a corpus's features, and those of its noisy version if given, to a device.

        Raises:
            ValueError: The corpus has no validation or no test split.
        """
        count = np.bincount(features.caption_owner, minlength=len(features.image_ids))
        rows = features.rows("train")
        versions = [features] if noisy is None else [features, noisy]
        return cls(
            image=torch.from_numpy(np.concatenate([v.image for v in versions])).to(device),
            text=torch.from_numpy(np.concatenate([v.text for v in versions])).to(device),
            train_rows=rows[count[rows] > 0],
            first_caption=np.cumsum(count) - count,
            caption_count=count,
            validation=Gallery.of(features, "val", device),
            test=Gallery.of(features, "test", device),
            corpus_fingerprint=features.corpus_fingerprint,
            device=device,
        )

    def pairs(self, config: RunConfig) -> Pairs:
        """Draw a run's low-data subset and its noise. At the same seed a larger subset contains a
        smaller one, and a higher rate makes all those pairs noisy that a lower rate does."""
        rows = generator(config.seed, "subset").permutation(self.train_rows)[: config.train_images]
        image, owner = rows, rows
        noisy_caption = np.zeros(int(self.caption_count.sum()), dtype=bool)
        noise = config.noise
        if noise is not None:
            draws = generator(config.seed, "noise", noise.kind)
            if noise.kind == "mismatched":
                chosen = draws.permutation(len(rows))[: round(noise.rate * len(rows))]
                owner = rows.copy()
                owner[chosen] = rows[np.roll(chosen, 1)]
            elif noise.kind == "images":
                noisy = draws.random(len(self.caption_count)) < noise.rate
                image = rows + len(self.caption_count) * noisy[rows]
            else:
                noisy_caption = draws.random(len(noisy_caption)) < noise.rate
        count = self.caption_count[owner]
        if config.captions_per_image is not None:
            count = np.minimum(count, config.captions_per_image)
        return Pairs(image, self.first_caption[owner], count, noisy_caption)

    def epoch(
        self, config: RunConfig, pairs: Pairs, epoch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw an epoch: image rows in random order, and one caption row for each. Each image comes
        once per epoch, so no batch holds two captions of it. With several captions per image, the
        image is repeated with distinct captions, or all its captions in turn if it has fewer."""
        order = generator(config.seed, "batch order", epoch).permutation(len(pairs.image))
        draw = generator(config.seed, "captions", epoch).random(len(order))
        chosen = (draw * pairs.caption_count[order]).astype(np.int64)
        copies = config.captions_at_once
        if copies > 1:
            count = pairs.caption_count[order, None]
            keys = generator(config.seed, "more captions", epoch).random((len(order), count.max()))
            keys[np.arange(keys.shape[1]) >= count] = 2.0
            np.put_along_axis(keys, chosen[:, None], -1.0, axis=1)
            chosen = np.take_along_axis(np.argsort(keys, axis=1), np.arange(copies) % count, axis=1)
            order, chosen = np.repeat(order, copies), chosen.ravel()
        return pairs.image[order], pairs.caption_rows(pairs.first_caption[order] + chosen)


def draw_epoch(
    configs: Sequence[RunConfig], data: TrainingData, pairs: Sequence[Pairs], epoch: int
) -> list[Tensor]:
    """Draw an epoch of R runs: image rows, caption rows and positions of the images among those of
    the run, each (R, P) on the device."""
    drawn = []
    for config, run_pairs in zip(configs, pairs, strict=True):
        images, captions = data.epoch(config, run_pairs, epoch)
        drawn.append((images, captions, run_pairs.places(images)))
    return [torch.from_numpy(np.stack(rows)).to(data.device) for rows in zip(*drawn, strict=True)]


def batches(count: int, size: int, copies: int = 1) -> list[slice]:
    """Cut an epoch of ``count`` images into batches of ``size`` images with ``copies`` pairs each.
    A last batch of a single image is left out: it has no negatives."""
    starts = [start for start in range(0, count, size) if count - start >= 2]
    return [slice(start * copies, (start + size) * copies) for start in starts]
