"""The base class of corpora: samples with captions and splits, images, a fingerprint."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from PIL import Image

from lib.datasets.report import CorpusError, IntegrityReport

Split = Literal["train", "val", "test", "none"]
"""Names of splits; ``"none"`` holds the images that a corpus has but uses in no split.

>>> from typing import get_args
>>> get_args(Split)
('train', 'val', 'test', 'none')
"""


@dataclass(frozen=True)
class Sample:
    """An image and its captions.

    Args:
        id: The image's name, unique in its corpus.
        captions: Any number of captions, in corpus order.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"none"``.
        labels: Ground truth for cluster measures, such as ``{"shape": "ball", "count": 2}``; empty
            if the corpus has none.
        link: A page about the image on the web, or None.

    >>> sample = Sample("p1.jpg", ("A dog .", "A dog runs ."), "train")
    >>> sample.id, len(sample.captions)
    ('p1.jpg', 2)
    """

    id: str
    captions: tuple[str, ...]
    split: Split
    labels: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    link: str | None = None


class Corpus(ABC):
    """Images with captions, in splits.

    A new corpus is a subclass that passes these arguments and defines ``load_image``. Its class
    attribute ``redistributable`` tells whether the published book may show images and captions;
    it is read without loading the corpus.

    Args:
        name: The name for :func:`lib.datasets.load_corpus`.
        samples: All samples, in an order that is the same on every machine.
        report: The result of the integrity check.
        fingerprint: SHA-256 in hexadecimal of all content that can change a result.

    >>> from lib.datasets import load_corpus
    >>> corpus = load_corpus("scenes", train=20, val=5, test=5)
    >>> len(corpus.split("val")), len(corpus.subset(10, seed=0))
    (5, 10)
    >>> corpus.load_image(corpus.samples[0]).mode
    'RGB'
    """

    redistributable: bool = False
    root_variable: str = ""

    def __init__(
        self, *, name: str, samples: Sequence[Sample], report: IntegrityReport, fingerprint: str
    ) -> None:
        self.name = name
        self.samples = tuple(samples)
        self.report = report
        self.fingerprint = fingerprint

    @abstractmethod
    def load_image(self, sample: Sample) -> Image.Image:
        """Return the image of a sample.

        Args:
            sample: A sample of this corpus.

        Returns:
            A Pillow image, mode RGB.

        Raises:
            CorpusError: The corpus has no such sample, or its file can no longer be read.
        """

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of a split, in corpus order.

        Args:
            name: One of :data:`lib.datasets.Split`.

        Returns:
            The samples, perhaps none.

        Raises:
            CorpusError: There is no such split.
        """
        if name not in get_args(Split):
            raise CorpusError(f"split {name!r} is unknown; use one of {', '.join(get_args(Split))}")
        return tuple(sample for sample in self.samples if sample.split == name)

    def subset(self, n: int, seed: int, split: str = "train") -> tuple[Sample, ...]:
        """Draw a low-data subset: ``n`` images that have a caption, in the order of the draw.

        With the same seed, a smaller subset is the beginning of a larger one. The study trains on
        these images.

        Args:
            n: Number of images.
            seed: Seed of the draw, 0 or more.
            split: One of :data:`lib.datasets.Split`.

        Returns:
            ``n`` samples.

        Raises:
            CorpusError: ``seed`` is negative, or ``n`` is not from 0 to the number of the split's
                images with a caption.
        """
        captioned = [sample for sample in self.split(split) if sample.captions]
        if not 0 <= n <= len(captioned):
            raise CorpusError(
                f"n = {n} images asked for, but split {split!r} of {self.name} has "
                f"{len(captioned)} with a caption; ask for 0 to {len(captioned)}"
            )
        if seed < 0:
            raise CorpusError(f"seed = {seed} is negative; use 0 or more")
        # Imported here, since it imports torch, which takes seconds.
        from lib.utils.seeds import generator

        order = generator(seed, "subset").permutation(len(captioned))
        return tuple(captioned[row] for row in order[:n])

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(split))} {split}" for split in get_args(Split)[:3])
        return f"<{self.name}: {counts}, {self.fingerprint[:12]}>"


def fingerprint_of(facts: Iterable[str], samples: Iterable[Sample]) -> str:
    """Return the SHA-256 of ``facts`` and of the ids, splits and captions of ``samples``.

    The length of each text is hashed before the text, so that different contents cannot give the
    same bytes.
    """
    digest = hashlib.sha256()

    def add(texts: Sequence[str]) -> None:
        digest.update(f"{len(texts)};".encode())
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}:".encode() + data)

    add(list(facts))
    for sample in samples:
        add([sample.id, sample.split, *sample.captions])
    return digest.hexdigest()
