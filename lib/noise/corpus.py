"""A corpus with noise in its captions or images."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from PIL import Image

from lib.datasets import Corpus, Sample
from lib.datasets.corpus import fingerprint_of
from lib.noise.captions import CAPTION_KINDS, caption_words, corrupt_caption
from lib.noise.checks import check_noise
from lib.noise.images import IMAGE_KINDS, corrupt_image
from lib.utils.seeds import generator

NOISE_VERSION = 1
"""Raise this when the same noise gives other captions or images; it is part of a noisy corpus's
fingerprint. Runs trained with noise then need a new ``RESULTS_VERSION`` as well."""

Modality = Literal["captions", "images"]

_KINDS: Mapping[Modality, Mapping[str, object]] = {"captions": CAPTION_KINDS, "images": IMAGE_KINDS}


@dataclass(frozen=True)
class Noise:
    """The noise in every caption, or in every image.

    Args:
        kind: A key of :data:`lib.noise.CAPTION_KINDS` or :data:`lib.noise.IMAGE_KINDS`; if it
            is ``"captions"`` or ``"images"``, a kind is drawn for each caption or image.
        severity: 1 to 5.
        seed: Seed of the draws, which depend only on ``seed``, ``kind``, ``severity``, the image's
            name and the caption's number.

    Raises:
        ValueError: The kind or the severity is unknown.

    >>> Noise("JPEG", 3).modality, Noise("captions", 3).kinds[0]
    ('images', 'word drop')
    """

    kind: str
    severity: int
    seed: int = 0

    def __post_init__(self) -> None:
        known = [*_KINDS, *(kind for kinds in _KINDS.values() for kind in kinds)]
        check_noise(self.kind, self.severity, known)

    @property
    def modality(self) -> Modality:
        """``"captions"`` or ``"images"``, whichever the noise changes."""
        return next(m for m, kinds in _KINDS.items() if self.kind == m or self.kind in kinds)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds from which one is drawn; often there is only one."""
        modality = self.modality
        return tuple(_KINDS[modality]) if self.kind == modality else (self.kind,)

    def caption(self, caption: str, sample: str, number: int, vocabulary: tuple[str, ...]) -> str:
        """Return the noisy version of a caption of a sample.

        Args:
            caption: The caption.
            sample: The sample's id.
            number: The caption's position among the sample's captions, from 0.
            vocabulary: As for :func:`lib.noise.corrupt_caption`.

        Returns:
            The caption with noise.

        Raises:
            ValueError: The noise changes images.
        """
        draws = generator(self.seed, "noise", self.kind, self.severity, sample, number)
        kind = self.kinds[int(draws.integers(len(self.kinds)))]
        return corrupt_caption(caption, kind, self.severity, draws, vocabulary)

    def image(self, image: Image.Image, sample: str) -> Image.Image:
        """Return the noisy version of a sample's image.

        Args:
            image: The image, mode RGB.
            sample: The sample's id.

        Returns:
            The image with noise, of the same mode and size.

        Raises:
            ValueError: The noise changes captions.
        """
        draws = generator(self.seed, "noise", self.kind, self.severity, sample)
        kind = self.kinds[int(draws.integers(len(self.kinds)))]
        return corrupt_image(image, kind, self.severity, draws)


class Corrupted(Corpus):
    """Some splits of a corpus with noise in every caption or in every image.

    Args:
        corpus: The clean corpus. Substitutions take their words from the train captions.
        noise: The noise.
        splits: The splits to keep; the others are left out.

    Raises:
        CorpusError: There is no such split.

    >>> from lib.datasets import load_corpus
    >>> clean = load_corpus("scenes", train=2, val=1, test=1)
    >>> Corrupted(clean, Noise("JPEG", 3), ["test"]).name
    'scenes (JPEG, severity 3)'
    """

    def __init__(self, corpus: Corpus, noise: Noise, splits: Collection[str]) -> None:
        self.clean = corpus
        self.noise = noise
        for split in splits:
            corpus.split(split)
        samples = [sample for sample in corpus.samples if sample.split in splits]
        if noise.modality == "captions":
            samples = [replace(sample, captions=self._captions(sample)) for sample in samples]
        facts = [corpus.fingerprint, f"noise, version {NOISE_VERSION}", repr(noise)]
        super().__init__(
            name=f"{corpus.name} ({noise.kind}, severity {noise.severity})",
            samples=samples,
            report=corpus.report,
            fingerprint=fingerprint_of(facts, samples),
        )
        self.redistributable = corpus.redistributable

    def load_image(self, sample: Sample) -> Image.Image:
        """Return the image of a sample, with noise if the noise changes images.

        Args:
            sample: A sample of this corpus.

        Returns:
            The image, mode RGB.
        """
        image = self.clean.load_image(sample)
        return image if self.noise.modality == "captions" else self.noise.image(image, sample.id)

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        captions = [c for sample in self.clean.split("train") for c in sample.captions]
        return tuple(sorted({word for caption in captions for word in caption_words(caption)}))

    def _captions(self, sample: Sample) -> tuple[str, ...]:
        return tuple(
            self.noise.caption(caption, sample.id, number, self._vocabulary)
            for number, caption in enumerate(sample.captions)
        )


def corrupt(corpus: Corpus, noise: Noise, splits: Collection[str] = ("test",)) -> Corpus:
    """Return some splits of a corpus with noise in every caption or in every image.

    Images get their noise when they are loaded.

    Args:
        corpus: The clean corpus.
        noise: The noise.
        splits: The splits to keep.

    Returns:
        A corpus of these splits, with another fingerprint.

    Raises:
        CorpusError: There is no such split.

    >>> from lib.datasets import load_corpus
    >>> clean = load_corpus("scenes", train=2, val=1, test=1)
    >>> noisy = corrupt(clean, Noise("word drop", 5))
    >>> len(noisy.samples), noisy.fingerprint == clean.fingerprint
    (1, False)
    """
    return Corrupted(corpus, noise, splits)
