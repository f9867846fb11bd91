"""Towers that are trained, and the inputs that they look up by row of an image or caption."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.datasets import Corpus
from lib.encoders import Features
from lib.runs import RunConfig
from lib.training.data import Pairs, TrainingData


class Towers(nn.Module, ABC):
    """One run's towers, which look up their inputs by the row of an image or caption.

    Attributes:
        widths: Lengths of an image's and a caption's features.
    """

    widths: tuple[int, int]

    @abstractmethod
    def image(self, rows: Tensor, draws: np.random.Generator | None = None) -> Tensor:
        """Return the features (B, d_image) of images; ``draws`` augments them."""

    @abstractmethod
    def text(self, rows: Tensor) -> Tensor:
        """Return the features (B, d_text) of captions."""

    def standardisation(self, pairs: Pairs) -> tuple[Tensor, Tensor] | None:
        """Return the features of a run's images and captions to standardise its heads on, or None
        if the towers begin at random."""
        return None


@dataclass(frozen=True)
class TowerInputs(ABC):
    """A corpus as one kind of trained towers reads it.

    Attributes:
        data: The corpus with row numbers (N, 1) and (M, 1) as features; draws and galleries are
            those of runs with frozen towers.
        caption_length: (M,) words or tokens, to read captions of similar length together.
    """

    data: TrainingData
    caption_length: NDArray[np.int64]

    @abstractmethod
    def towers(self, config: RunConfig, pairs: Pairs) -> Towers:
        """Return a run's towers before its first step, on the device."""


def row_numbers(corpus: Corpus, device: torch.device) -> TrainingData:
    """Return a corpus with row numbers as features."""
    owner = [row for row, sample in enumerate(corpus.samples) for _ in sample.captions]
    numbers: list[NDArray[Any]] = [np.arange(n)[:, None] for n in (len(corpus.samples), len(owner))]
    rows = Features(
        image=numbers[0],
        text=numbers[1],
        caption_owner=np.array(owner, dtype=np.int64),
        image_ids=tuple(sample.id for sample in corpus.samples),
        splits=tuple(sample.split for sample in corpus.samples),
        fingerprint=corpus.fingerprint,
        corpus_fingerprint=corpus.fingerprint,
    )
    return TrainingData.of(rows, device)
