"""Recall over galleries larger than memory: blocks of images by blocks of captions."""

import ctypes
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import MetricsError, Values, as_ks, as_owner, as_scores, as_tensor
from .ranking import BLOCK_ROWS, _assemble, _count_embeddings, _exact, _on_grid, _Tally
from .retrieval import RetrievalMetrics, _summarise

IMAGES_AT_ONCE = 4096
CAPTIONS_AT_ONCE = 8192
"""Rows in memory at once as float64: at d = 512, 16 MB of images and 32 MB of captions."""
SMALLEST_NORM = 1e-150
"""Below this, the square of a norm has fewer digits in float64, or underflows."""


@torch.no_grad()
def recall_at_k(
    image: Values | Iterable[Values],
    text: Values | Iterable[Values],
    caption_owner: Values,
    ks: Sequence[int] = (1, 5, 10),
    *,
    device: torch.device | str | None = None,
) -> RetrievalMetrics:
    """Return retrieval metrics by inner products of embeddings, in memory for two blocks.

    The numbers are those of :func:`lib.metrics.retrieval_metrics_from_embeddings`: equal embeddings
    tie, and ties count as their expectation. Memory holds two blocks of embeddings, their product
    and a few numbers per query.

    Args:
        image: (N, d): a tensor, a NumPy array or memory map, or an iterable of such chunks (n, d),
            in order. An iterable is read once, into a temporary file.
        text: (M, d), likewise.
        caption_owner: (M,) integers; the image row of each caption.
        ks: Cut-offs, whole numbers from 1 on.
        device: Device that computes; default, that of ``image``, or the CPU.

    Returns:
        Recalls in percent and median ranks of both directions, one number each.

    Raises:
        MetricsError: A coordinate is not finite, or shapes or devices do not match.

    Source:
        McSherry and Najork (2008), for ties.

    >>> chunks = (torch.eye(4)[start : start + 2] for start in (0, 2))
    >>> measured = recall_at_k(torch.eye(4), chunks, [0, 1, 2, 3], ks=(1,))
    >>> float(measured.i2t.recall[1]), float(measured.t2i.recall[1])
    (100.0, 100.0)
    """
    cutoffs = as_ks(ks)
    target = torch.device(device or (image.device if isinstance(image, Tensor) else "cpu"))
    images, texts = _Rows("image", image, target), _Rows("text", text, target)
    if images.width != texts.width:
        raise MetricsError(
            f"image (N, d) and text (M, d) must have the same d, but they have {images.width} and "
            f"{texts.width}"
        )
    owner = as_owner(caption_owner, images.count, texts.count, target)
    parts = _slices(texts.count, CAPTIONS_AT_ONCE)
    matched = torch.cat([_matched_scores(images, texts, owner, columns) for columns in parts])
    tally = _Tally(matched, owner, images.count)
    for rows in _slices(images.count, IMAGES_AT_ONCE):
        block = images.on_grid(rows)
        for columns in _slices(texts.count, CAPTIONS_AT_ONCE):
            held = owner[columns] - rows.start
            held = torch.where((held >= 0) & (held < len(block)), held, -1)
            part = tally.part(rows, columns)
            _count_embeddings(part, block, texts.on_grid(columns), held, BLOCK_ROWS)
    return _summarise(*_assemble([tally], torch.Size(), owner, images.count), cutoffs, False)


class _Rows:
    """Vectors (``count``, ``width``), read in parts; 2^``top`` exceeds their greatest norm."""

    def __init__(self, name: str, source: Any, device: torch.device) -> None:
        self.name, self.device = name, device
        if hasattr(source, "to_numpy"):  # A frame's rows are not its items.
            source = source.to_numpy()
        bare = hasattr(source, "__array__") and not hasattr(source, "dtype")
        if bare or isinstance(source, Tensor):
            source = as_tensor(name, source)
        shape = getattr(source, "shape", None)
        if shape is None:
            source = _spooled(name, source)
            shape = source.shape
        if len(shape) != 2 or 0 in shape:
            raise MetricsError(
                f"{name} must be (n, d), neither of them 0, but its shape is {tuple(shape)}"
            )
        self.source = source
        self.count, self.width = (int(size) for size in shape)
        greatest, parts = 0.0, list(_slices(self.count, CAPTIONS_AT_ONCE))
        for part in parts:
            vectors = self.read(part)
            norms = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
            greatest = max(greatest, float(norms.amax()))
        # Squares of smaller numbers underflow, and all vectors would seem to be zero.
        lost = greatest < SMALLEST_NORM and any(bool(self.read(part).any()) for part in parts)
        if lost or not math.isfinite(greatest):
            raise MetricsError(f"{name} has norms beyond float64; scale it to unit length")
        self.top = math.frexp(greatest)[1]

    def read(self, rows: "slice | Tensor") -> Tensor:
        """Return some of the vectors as finite floats on the device."""
        if isinstance(self.source, Tensor):
            part: Any = self.source[
                rows if isinstance(rows, slice) else rows.to(self.source.device)
            ]
        else:
            # A copy: a memory map may be read-only, which tensors can't be.
            part = self.source[rows if isinstance(rows, slice) else rows.tolist()].copy()
        try:
            vectors = as_scores(self.name, part)
        except MetricsError as error:
            start = rows.start if isinstance(rows, slice) else 0
            raise MetricsError(f"{error} (counted from row {start} on)") from error
        return vectors.to(self.device)

    def on_grid(self, rows: "slice | Tensor") -> Tensor:
        return _on_grid(self.read(rows), self.top)


def _matched_scores(images: _Rows, texts: _Rows, owner: Tensor, columns: slice) -> Tensor:
    """Return the exact score of each caption of ``columns`` with its image."""
    needed, row = torch.unique(owner[columns], return_inverse=True)
    column = torch.arange(len(row), device=row.device)
    return _exact(images.on_grid(needed), texts.on_grid(columns), row, column)


def _slices(count: int, at_once: int) -> Iterator[slice]:
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def _spooled(name: str, chunks: Any) -> Tensor:
    """Write chunks to a temporary file and return a tensor that maps the file."""
    if not isinstance(chunks, Iterable) or isinstance(chunks, str | bytes | dict):
        raise MetricsError(
            f"{name} must be a tensor, an array or an iterable of chunks, not a "
            f"{type(chunks).__name__}"
        )
    dtype: torch.dtype | None = None
    width = count = 0
    with tempfile.NamedTemporaryFile(prefix="gallery-") as file:
        for index, chunk in enumerate(chunks):
            vectors = as_scores(f"{name}, chunk {index},", chunk).cpu().contiguous()
            if vectors.dim() != 2 or (index and vectors.shape[1] != width):
                raise MetricsError(
                    f"{name}, chunk {index}, must be (n, {width or 'd'}), but its shape is "
                    f"{tuple(vectors.shape)}"
                )
            wide = vectors.dtype == torch.float64
            dtype = dtype or (torch.float64 if wide else torch.float32)
            if wide and dtype == torch.float32:
                raise MetricsError(f"{name}, chunk {index}, is float64, but those before are not")
            count, width = count + len(vectors), vectors.shape[1]
            vectors = vectors.to(dtype)
            file.write(ctypes.string_at(vectors.data_ptr(), vectors.nbytes))
        if not count or dtype is None:
            raise MetricsError(f"{name} is empty: no chunk came")
        file.flush()
        # The mapping stays valid after the file is deleted.
        return torch.from_file(file.name, shared=False, size=count * width, dtype=dtype).view(
            count, width
        )
