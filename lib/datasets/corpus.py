"""What a corpus is: samples with captions and splits, a way to load an image, a fingerprint."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from PIL import Image

from lib.datasets.report import CorpusError, IntegrityReport

Split = Literal["train", "val", "test", "none"]
"""Names of splits; ``"none"`` holds the images that a corpus ships and uses in no split.

>>> from typing import get_args
>>> get_args(Split)
('train', 'val', 'test', 'none')
"""


@dataclass(frozen=True)
class Sample:
    """An image and its captions.

    Args:
        id: The image's name, unique in its corpus.
        captions: Its captions, any number of them, in corpus order.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"none"``.
        labels: Ground truth for cluster measures where the corpus has one, such as
            ``{"shape": "ball", "count": 2}``.
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

    A new corpus is a subclass that gives these and loads an image. Its class says in
    ``redistributable`` whether images and captions may be shown in the published book, so that this
    is known where the corpus itself is not at hand.

    Args:
        name: What :func:`lib.datasets.load_corpus` calls it.
        samples: All samples, in an order that is the same everywhere.
        report: What the integrity check found, and what was dropped.
        fingerprint: SHA-256 in hexadecimal of all content that can change a result.

    >>> from lib.datasets import load_corpus
    >>> corpus = load_corpus("scenes", train=20, val=5, test=5)
    >>> len(corpus.split("val")), len(corpus.subset(10, seed=0))
    (5, 10)
    >>> corpus.load_image(corpus.samples[0]).mode
    'RGB'
    """

    redistributable: bool = False

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
            sample: One of this corpus.

        Returns:
            An image of Pillow, mode RGB.

        Raises:
            CorpusError: The sample is none of this corpus, or its file can no longer be read.
        """

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of a split, in corpus order.

        Args:
            name: One of :data:`lib.datasets.Split`.

        Returns:
            The samples; none where the split is empty.

        Raises:
            CorpusError: There is no such split.
        """
        if name not in get_args(Split):
            raise CorpusError(f"split {name!r} is unknown; use one of {', '.join(get_args(Split))}")
        return tuple(sample for sample in self.samples if sample.split == name)

    def subset(self, n: int, seed: int, split: str = "train") -> tuple[Sample, ...]:
        """Draw a low-data subset: ``n`` images that have a caption, in the order of the draw.

        At one seed a smaller subset is the beginning of a larger one. These are the images that the
        study trains on at that seed.

        Args:
            n: Number of images.
            seed: Of the draw, 0 or more.
            split: One of :data:`lib.datasets.Split`.

        Returns:
            ``n`` samples.

        Raises:
            CorpusError: ``n`` is negative or more than the split has; the seed is negative.
        """
        captioned = [sample for sample in self.split(split) if sample.captions]
        if not 0 <= n <= len(captioned):
            raise CorpusError(
                f"n = {n} images asked for, but split {split!r} of {self.name} has "
                f"{len(captioned)} with a caption; ask for 0 to {len(captioned)}"
            )
        if seed < 0:
            raise CorpusError(f"seed = {seed} is negative; use 0 or more")
        # Imported here since it needs torch, which takes seconds to import.
        from lib.utils.seeds import generator

        order = generator(seed, "subset").permutation(len(captioned))
        return tuple(captioned[row] for row in order[:n])

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(split))} {split}" for split in get_args(Split)[:3])
        return f"<{self.name}: {counts}, {self.fingerprint[:12]}>"


def fingerprint_of(facts: Iterable[str], samples: Iterable[Sample]) -> str:
    """Return the SHA-256 of some facts and of ids, splits and captions.

    Each text is preceded by its length, so that no two contents give the same bytes.
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
