"""Scenes as a corpus."""

from typing import Literal

from PIL import Image

from lib.datasets.corpus import Corpus, Sample, fingerprint_of
from lib.datasets.report import CorpusError, IntegrityReport
from lib.datasets.scenes.grammar import describe
from lib.datasets.scenes.layout import Scene, compose, scene_generator
from lib.datasets.scenes.painter import paint

GENERATOR_VERSION = 1
"""Raise this when a seed gives other pixels; it is part of the fingerprint."""


class Scenes(Corpus):
    """Drawn pictures of a few objects on a background, with five captions each, from no files.

    An image depends only on the seed, its split and its number: it is drawn when it is loaded, is
    the same on every machine, and a longer split begins with the same images. Shapes, colours,
    textures, backgrounds and synonyms are long-tailed: the k-th most frequent comes about 1/k as
    often as the first.

    Args:
        seed: Seed of the whole corpus.
        train: Number of images in the train split.
        val: Number of images in the validation split.
        test: Number of images in the test split.
        image_size: Side of a picture in pixels.

    Raises:
        CorpusError: An argument is out of its range.

    >>> corpus = Scenes(train=1, val=0, test=0)
    >>> corpus.load_image(corpus.samples[0]).size, len(corpus.samples[0].captions)
    ((128, 128), 5)
    """

    redistributable = True

    def __init__(
        self,
        seed: int = 0,
        train: int = 800,
        val: int = 200,
        test: int = 400,
        image_size: int = 128,
    ) -> None:
        for name, value, low, high in (
            ("seed", seed, 0, 2**63 - 1),
            ("train", train, 0, 100_000),
            ("val", val, 0, 100_000),
            ("test", test, 0, 100_000),
            ("image_size", image_size, 32, 1024),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise CorpusError(f"{name} = {value!r}; use a whole number from {low} to {high}")
        if train + val + test == 0:
            raise CorpusError("train, val and test are all 0; a corpus needs an image")
        self.seed = seed
        self.image_size = image_size
        sizes: dict[Literal["train", "val", "test"], int]
        sizes = {"train": train, "val": val, "test": test}
        self._scenes: dict[str, tuple[str, int, Scene]] = {}
        samples = []
        for split, size in sizes.items():
            for index in range(size):
                name = f"{split}-{index:05d}"
                scene = compose(scene_generator(seed, split, index, "layout"))
                self._scenes[name] = (split, index, scene)
                captions = describe(scene, scene_generator(seed, split, index, "captions"))
                samples.append(Sample(name, captions, split, scene.labels))
        facts = f"scenes, version {GENERATOR_VERSION}, seed {seed}, {image_size} px"
        super().__init__(
            name="scenes",
            samples=samples,
            report=IntegrityReport(
                images_kept=len(samples),
                captions_kept=sum(len(sample.captions) for sample in samples),
                notes=(f"drawn by the study itself: {facts}",),
            ),
            fingerprint=fingerprint_of([facts], samples),
        )

    def load_image(self, sample: Sample) -> Image.Image:
        """Draw a picture.

        Args:
            sample: A sample of this corpus.

        Returns:
            A Pillow image, mode RGB, ``image_size`` pixels square.

        Raises:
            CorpusError: The corpus has no such sample.
        """
        split, index, scene = self._find(sample)
        rng = scene_generator(self.seed, split, index, "pixels")
        return Image.fromarray(paint(scene, self.image_size, rng))

    def scene(self, sample: Sample) -> Scene:
        """Return the scene in a picture: its objects, background and light."""
        return self._find(sample)[2]

    def _find(self, sample: Sample) -> tuple[str, int, Scene]:
        try:
            return self._scenes[sample.id]
        except KeyError:
            raise CorpusError(f"{sample.id!r} is not an image of {self!r}") from None
