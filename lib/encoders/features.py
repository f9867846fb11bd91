"""The features of a whole corpus, computed once and cached by what determines them."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from lib.datasets import Corpus
from lib.encoders.towers import (
    ImageTower,
    TextTower,
    load_image_tower,
    load_text_tower,
    resolve_device,
)
from lib.utils.files import atomic_path, home, write_atomic
from lib.utils.progress import Progress

BLOCK = 512
"""Items per cached block; an interruption loses at most one block."""
BATCH = 32
"""Items per forward pass. It is fixed, since the last bits of features may depend on it."""


@dataclass(frozen=True)
class Features:
    """Frozen tower outputs for every image and caption of a corpus.

    Args:
        image: (N, d_image) float32, one row per image in corpus order; read-only, memory-mapped.
        text: (M, d_text) float32, one row per caption.
        caption_owner: (M,) int64, the image row of each caption.
        image_ids: The names of the N images.
        splits: The splits of the N images.
        fingerprint: SHA-256 of the corpus content and the towers.
        corpus_fingerprint: SHA-256 of the corpus content alone.

    >>> features = Features(
    ...     image=np.zeros((2, 3), np.float32),
    ...     text=np.zeros((4, 5), np.float32),
    ...     caption_owner=np.array([0, 0, 1, 1]),
    ...     image_ids=("a.jpg", "b.jpg"),
    ...     splits=("train", "test"),
    ...     fingerprint="of the features",
    ...     corpus_fingerprint="of the corpus",
    ... )
    >>> features.rows("test")
    array([1])
    """

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    caption_owner: NDArray[np.int64]
    image_ids: tuple[str, ...]
    splits: tuple[str, ...]
    fingerprint: str
    corpus_fingerprint: str

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the image rows of a split, in corpus order.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            (n,), empty if the corpus has no such split.
        """
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)


@dataclass(frozen=True)
class Rows:
    """A tower's outputs for the images, or for the captions, of a corpus.

    Args:
        values: (rows, d) float32, in corpus order.
        fingerprint: SHA-256 of the corpus content and the tower.

    >>> Rows(np.zeros((2, 3), np.float32), "of these").values.shape
    (2, 3)
    """

    values: NDArray[np.float32]
    fingerprint: str


def extract_features(
    corpus: Corpus, image_tower: str, text_tower: str, device: str = "auto"
) -> Features:
    """Return the features of a corpus, from the cache if it has them.

    The cache is addressed by content: the towers' weights and preprocessing, and the corpus's
    images and captions. It keeps blocks of some hundred items, so an interrupted extraction
    continues where it stopped; of two processes one computes the features and the other waits.

    Args:
        corpus: Images and captions.
        image_tower: A name for :func:`lib.encoders.load_image_tower`.
        text_tower: A name for :func:`lib.encoders.load_text_tower`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` …

    Returns:
        The features, in corpus order.

    Raises:
        TowerError: A tower cannot be loaded.
        ValueError: The device cannot be used, or a tower gives a number that is not finite.

    >>> from lib.datasets import load_corpus
    >>> corpus = load_corpus("scenes", train=2, val=1, test=1, image_size=32)
    >>> features = extract_features(corpus, "efficientnet-lite0@32", "minilm", device="cpu")
    >>> features.image.shape, features.text.shape
    ((4, 1280), (20, 384))
    """
    chosen = resolve_device(device)
    images, texts = load_image_tower(image_tower), load_text_tower(text_tower)
    image, text = _image_rows(corpus, images, chosen), _caption_rows(corpus, texts, chosen)
    owners = [row for row, sample in enumerate(corpus.samples) for _ in sample.captions]
    return Features(
        image=image.values,
        text=text.values,
        caption_owner=np.array(owners, dtype=np.int64),
        image_ids=tuple(sample.id for sample in corpus.samples),
        splits=tuple(sample.split for sample in corpus.samples),
        fingerprint=_key(image.fingerprint, text.fingerprint),
        corpus_fingerprint=corpus.fingerprint,
    )


def extract_images(corpus: Corpus, image_tower: str, device: str = "auto") -> Rows:
    """Return the features of a corpus's images alone, one row per image.

    Args:
        corpus: The images.
        image_tower: As for :func:`lib.encoders.extract_features`, which has the same cache.
        device: As there.

    Returns:
        (N, d_image) features.

    Raises:
        TowerError, ValueError: As there.

    >>> from lib.datasets import load_corpus
    >>> corpus = load_corpus("scenes", train=2, val=1, test=1, image_size=32)
    >>> extract_images(corpus, "efficientnet-lite0@32", device="cpu").values.shape
    (4, 1280)
    """
    return _image_rows(corpus, load_image_tower(image_tower), resolve_device(device))


def extract_captions(corpus: Corpus, text_tower: str, device: str = "auto") -> Rows:
    """Return the features of a corpus's captions alone, one row per caption.

    Args:
        corpus: The captions.
        text_tower: As for :func:`lib.encoders.extract_features`, which has the same cache.
        device: As there.

    Returns:
        (M, d_text) features; equal captions have equal features.

    Raises:
        TowerError, ValueError: As there.

    >>> from lib.datasets import load_corpus
    >>> corpus = load_corpus("scenes", train=2, val=1, test=1)
    >>> extract_captions(corpus, "minilm", device="cpu").values.shape
    (20, 384)
    """
    return _caption_rows(corpus, load_text_tower(text_tower), resolve_device(device))


def _image_rows(corpus: Corpus, tower: ImageTower, device: torch.device) -> Rows:
    samples = corpus.samples
    key = _key(corpus.fingerprint, tower.fingerprint)
    values = cached_rows(
        key,
        f"{corpus.name}: images through {tower.name}",
        [1] * len(samples),
        tower.dim,
        lambda start, stop: tower(
            (corpus.load_image(sample) for sample in samples[start:stop]), device
        ),
    )
    return Rows(values, key)


def _caption_rows(corpus: Corpus, tower: TextTower, device: torch.device) -> Rows:
    distinct, row = distinct_captions(corpus)
    key = _key(corpus.fingerprint, tower.fingerprint)
    values = cached_rows(
        key,
        f"{corpus.name}: captions through {tower.name}",
        [1] * len(distinct),
        tower.dim,
        lambda start, stop: tower(distinct[start:stop], device),
    )
    return Rows(values[row], key)


def distinct_captions(corpus: Corpus) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct captions, short ones first, and each caption's position among them.

    Equal captions are encoded once and get equal features, so they tie exactly in a ranking.
    """
    captions = [caption for sample in corpus.samples for caption in sample.captions]
    distinct = sorted(set(captions), key=lambda caption: (len(caption), caption))
    position = {caption: row for row, caption in enumerate(distinct)}
    return distinct, np.array([position[caption] for caption in captions], dtype=np.int64)


def _key(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def cached_rows(
    key: str,
    description: str,
    lengths: Sequence[int],
    dim: int,
    encode: Callable[[int, int], Tensor],
    dtype: type[np.generic] = np.float32,
) -> NDArray[Any]:
    """Return the rows of all items from ``encode``, or from the cache: (rows, dim), memory-mapped.

    Args:
        key: The SHA-256, in hexadecimal, of all that determines the rows.
        description: Text of the progress line.
        lengths: Number of rows of each item.
        dim: Length of a row.
        encode: Returns the rows of the items ``start`` to ``stop``, at most :data:`BATCH` of them.
        dtype: Type of the cached numbers.

    Raises:
        ValueError: A row is not finite.
    """
    folder = home() / "features" / key[:2] / key
    whole = folder / "features.npy"
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    shape = (int(ends[-1]), dim)
    # Without the lock, so that a folder that cannot be written serves what it has.
    rows = _read(whole, shape, dtype)
    if rows is not None:
        # An earlier process may have been killed while it removed the blocks.
        with suppress(OSError):
            _remove_blocks(folder)
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        rows = _read(whole, shape, dtype)
        if rows is not None:
            return rows
        starts = range(0, len(lengths), BLOCK)
        blocks = [folder / f"block-{start:07d}.npy" for start in starts]
        with Progress(description, total=len(lengths)) as progress:
            for start, block in zip(starts, blocks, strict=True):
                stop = min(start + BLOCK, len(lengths))
                if _read(block, (int(ends[stop] - ends[start]), dim), dtype) is None:
                    _write(block, _encode_block(start, stop, ends, dim, encode, dtype))
                progress.advance(stop - start)
        _write(whole, np.concatenate([np.load(block, allow_pickle=False) for block in blocks]))
        rows = _read(whole, shape, dtype)
        if rows is None:
            raise OSError(f"{whole} was written and cannot be read back; check the disk")
        _remove_blocks(folder)
    return rows


def _encode_block(
    start: int,
    stop: int,
    ends: NDArray[np.int64],
    dim: int,
    encode: Callable[[int, int], Tensor],
    dtype: type[np.generic],
) -> NDArray[Any]:
    block = np.empty((int(ends[stop] - ends[start]), dim), dtype=dtype)
    for low in range(start, stop, BATCH):
        high = min(low + BATCH, stop)
        block[ends[low] - ends[start] : ends[high] - ends[start]] = encode(low, high).numpy()
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        item = int(np.searchsorted(ends, ends[start] + bad[0], side="right")) - 1
        raise ValueError(f"the tower gives a non-finite feature for item {item}")
    return block


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _remove_blocks(folder: Path) -> None:
    for block in folder.glob("*block-*"):
        block.unlink(missing_ok=True)


class _Hashed:
    """A file that is written in Python and hashes what is written.

    NumPy writes real files through C's buffers, and may not notice that the disk became full.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _write(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        hashed = _Hashed(file)
        np.save(hashed, array)
    write_atomic(_digest_path(path), json.dumps({"sha256": hashed.digest.hexdigest()}))


def _read(path: Path, shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any] | None:
    """Map a cached array into memory; return None if there is none or it is damaged."""
    if not path.exists() or not _digest_path(path).exists():
        return None
    try:
        expected = json.loads(_digest_path(path).read_text())["sha256"]
        array: NDArray[Any] | None = None
        if hashlib.sha256(path.read_bytes()).hexdigest() == expected:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        array = None
    if array is None or array.shape != tuple(shape) or array.dtype != dtype:
        warnings.warn(f"{path} is damaged and is computed again", stacklevel=2)
        return None
    return array
