"""Corpora of images with captions: samples, splits, low-data subsets, an integrity check."""

import inspect
import os
from collections.abc import Iterable
from typing import Any

from lib.datasets.captions import Caption, CaptionFile, read_captions
from lib.datasets.corpus import Corpus, Sample, Split
from lib.datasets.flickr8k import Flickr8k, find_flickr8k
from lib.datasets.report import CorpusError, DownloadError, IntegrityError, IntegrityReport, Problem
from lib.datasets.scenes import Scenes
from lib.utils.text import did_you_mean

CORPORA: dict[str, type[Corpus]] = {"scenes": Scenes, "flickr8k": Flickr8k}
"""The classes of corpora that :func:`lib.datasets.load_corpus` loads, by name; add your own here.

>>> list(CORPORA)
['scenes', 'flickr8k']
"""


def load_corpus(
    name: str, *, root: str = "", on_bad_sample: str = "error", **options: Any
) -> Corpus:
    """Load a corpus by name.

    Args:
        name: A key of :data:`lib.datasets.CORPORA`.
        root: The corpus's folder; "" looks in the usual places. A class without ``root`` or
            ``on_bad_sample`` as an argument does not get it.
        on_bad_sample: ``"error"`` or ``"skip"``.
        options: Other arguments of the corpus's class.

    Returns:
        The corpus, after its integrity check.

    Raises:
        CorpusError: The name or an option is unknown, or the corpus cannot be used.

    >>> load_corpus("scenes", train=2, val=1, test=1).samples[0].id
    'train-00000'
    """
    if name not in CORPORA:
        raise CorpusError(f"corpus {name!r} is unknown{_hint(name, CORPORA)}")
    known = inspect.signature(CORPORA[name]).parameters
    for option in options:
        if option not in known:
            raise CorpusError(f"{name} has no option {option!r}{_hint(option, known)}")
    shared = {"root": root or None, "on_bad_sample": on_bad_sample}
    given: Any = {option: value for option, value in shared.items() if option in known}
    return CORPORA[name](**given, **options)


def is_named(name: str, root: str = "") -> bool:
    """Return whether the folder of a corpus is named, by ``root`` or a variable of the environment.

    If it is not, the corpus is drawn, or is looked for where downloads go.

    Args:
        name: The corpus.
        root: As for :func:`lib.datasets.load_corpus`.

    Returns:
        Whether it is; False for an unknown name without a root.

    >>> is_named("scenes"), is_named("flickr8k", "/data/flickr8k")
    (False, True)
    """
    variable = getattr(CORPORA.get(name), "root_variable", "")
    return bool(root or (variable and os.environ.get(variable)))


def _hint(word: str, known: Iterable[str]) -> str:
    return f"{did_you_mean(word, known)}; there are: {', '.join(known)}"


__all__ = [
    "CORPORA",
    "Caption",
    "CaptionFile",
    "Corpus",
    "CorpusError",
    "DownloadError",
    "Flickr8k",
    "IntegrityError",
    "IntegrityReport",
    "Problem",
    "Sample",
    "Scenes",
    "Split",
    "find_flickr8k",
    "is_named",
    "load_corpus",
    "read_captions",
]
