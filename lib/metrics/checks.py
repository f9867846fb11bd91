"""Input checks of the metrics; each message names the argument and the first bad entry."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Array(Protocol):
    """A NumPy array, a memory map, or anything else that converts to a NumPy array.

    >>> import numpy as np
    >>> from lib.metrics import spread
    >>> spread(np.eye(2))
    tensor(0.5000, dtype=torch.float64)
    """

    def __array__(self) -> Any:
        """Return a NumPy array."""


Values = Tensor | Array | Sequence[Any]
"""Input of a metric: a tensor on any device, an array, or nested lists of numbers.

>>> from lib.metrics import spread
>>> float(spread(torch.eye(2))), float(spread([[1.0, 0.0], [0.0, 1.0]]))
(0.5, 0.5)
"""


class MetricsError(ValueError):
    """An argument of a metric is invalid; the message names it. A :class:`ValueError`.

    >>> from lib.metrics import MetricsError, spread
    >>> try:
    ...     spread([[1.0, float("nan")]])
    ... except MetricsError as error:
    ...     print(str(error).split(",")[0])
    embeddings holds 1 numbers that are not finite
    """


def as_tensor(name: str, values: Any) -> Tensor:
    """Return a tensor as it is, detached, or an array or nested lists as a new one.

    Arrays may be read-only, of any strides or byte order, or a column or a frame of pandas.

    Raises:
        MetricsError: A masked array, a tensor that is sparse, nested, quantised or without data, or
            anything that is not numbers.
    """
    if isinstance(values, Tensor):
        return _plain(name, values.detach())
    try:
        if isinstance(values, list | tuple) and values and _is_array(values[0]):
            return torch.stack([as_tensor(name, one) for one in values])
        if not hasattr(values, "__array__"):
            return torch.as_tensor(values)
        array = values.__array__()
        if hasattr(values, "filled"):
            raise MetricsError(f"{name} is a masked array: fill it, or leave the masked rows out")
        kind, size = array.dtype.kind, array.dtype.itemsize
        if kind == "O":  # As of pandas' columns that may lack a value.
            return torch.as_tensor(array.tolist())
        wanted = {"f": f"float{8 * min(size, 8)}"}  # Torch has no larger floats.
        array = array.astype(wanted.get(kind, array.dtype.newbyteorder("=")), copy=False)
        if not array.flags.writeable or min(array.strides, default=0) < 0:
            array = array.copy()  # Torch takes no negative strides, and warns of read-only arrays.
        return _plain(name, torch.from_numpy(array))
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, MetricsError):
            raise
        raise MetricsError(f"{name} must hold numbers in rows of equal length: {error}") from error


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or bool(getattr(value, "ndim", 0))


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Return a dense tensor in a type that has all operations, or raise a MetricsError."""
    kinds = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
        "quantised": tensor.is_quantized,
        "meta": tensor.is_meta,
    }
    if kind := next((kind for kind, holds in kinds.items() if holds), ""):
        raise MetricsError(f"{name} is a {kind} tensor; give a dense one that holds its numbers")
    if tensor.is_floating_point():
        return tensor.float() if tensor.dtype.itemsize == 1 else tensor
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        whole = tensor.long()
        return tensor.double() if (whole < 0).any() else whole
    return tensor


def as_scores(name: str, values: Any) -> Tensor:
    """Return ``values`` as a detached, finite, real tensor of floats with two axes or more.

    Integers become float64.

    Raises:
        MetricsError: Complex values, fewer than two axes, an empty axis, or a number that is not
            finite.
    """
    tensor = as_tensor(name, values)
    if tensor.is_complex():
        raise MetricsError(f"{name} holds complex numbers; scores must be real")
    if tensor.ndim < 2:
        raise MetricsError(f"{name} must have two axes or more, but its shape is {shape(tensor)}")
    if 0 in tensor.shape:
        raise MetricsError(f"{name} is empty: its shape is {shape(tensor)}")
    if not tensor.is_floating_point():
        tensor = tensor.double()
    if tensor.device.type == "mps":  # It has no float64.
        tensor = tensor.cpu()
    # A sum finds a NaN or an infinity faster than a test of every number; the sum may overflow.
    if not tensor.sum().isfinite():
        bad = (~tensor.isfinite()).nonzero()
        if len(bad):
            where = tuple(bad[0].tolist())
            raise MetricsError(
                f"{name} holds {len(bad)} numbers that are not finite, the first, "
                f"{tensor[where].item()}, at {list(where)}; a diverged model can't be ranked"
            )
    return tensor


def as_pair(image: Any, text: Any, *, matched: bool = False) -> tuple[Tensor, Tensor]:
    """Return the embeddings of both modalities, (..., N, d) and (..., M, d), as :func:`as_scores`.

    Args:
        image: Embeddings of the images.
        text: Embeddings of the captions.
        matched: Whether row i of both is one pair, so that N = M.

    Raises:
        MetricsError: As :func:`as_scores`, or the shapes or devices do not match.
    """
    image, text = as_scores("image", image), as_scores("text", text)
    if matched and image.shape != text.shape:
        raise MetricsError(
            "image and text must both be (..., n, d), row i of each one pair, but their shapes are "
            f"{shape(image)} and {shape(text)}"
        )
    if image.shape[:-2] != text.shape[:-2] or image.shape[-1] != text.shape[-1]:
        raise MetricsError(
            "image (..., N, d) and text (..., M, d) must agree in every axis but the last but "
            f"one, but their shapes are {shape(image)} and {shape(text)}"
        )
    if image.device != text.device:
        raise MetricsError(f"image is on {image.device}, but text is on {text.device}")
    return image, text


def as_owner(caption_owner: Any, images: int, captions: int, device: torch.device) -> Tensor:
    """Return the image row of each caption as an int64 tensor (captions,) on ``device``.

    Raises:
        MetricsError: Another shape, numbers that are not integers, or a row that does not exist.
    """
    owner = as_tensor("caption_owner", caption_owner)
    if owner.is_floating_point() or owner.is_complex() or owner.dtype == torch.bool:
        raise MetricsError(f"caption_owner must hold integers, image rows, but it is {owner.dtype}")
    if tuple(owner.shape) != (captions,):
        raise MetricsError(
            f"caption_owner must name one image for each of the {captions} captions, but its "
            f"shape is {shape(owner)}"
        )
    owner = owner.to(device=device, dtype=torch.int64)
    bad = ((owner < 0) | (owner >= images)).nonzero()
    if len(bad):
        caption = int(bad[0])
        raise MetricsError(
            f"caption_owner[{caption}] is {int(owner[caption])}, but there are {images} images, "
            f"0 to {images - 1}"
        )
    return owner


def as_ks(ks: Any) -> tuple[int, ...]:
    """Return ``ks`` as a tuple of distinct positive integers, in the order given.

    Raises:
        MetricsError: ``ks`` is empty, has duplicates, or holds anything else.
    """
    try:
        cutoffs = tuple(ks)
    except TypeError:
        raise MetricsError(
            f"ks must be a list of cut-offs such as (1, 5, 10), not {ks!r}"
        ) from None
    whole = all(hasattr(k, "__index__") and not isinstance(k, bool) for k in cutoffs)
    if not cutoffs or not whole or any(k < 1 for k in cutoffs) or len({*cutoffs}) < len(cutoffs):
        raise MetricsError(f"ks must be distinct whole numbers from 1 on, not {ks!r}")
    return tuple(int(k) for k in cutoffs)


def shape(tensor: Tensor) -> str:
    """Write a tensor's shape as ``(2, 3)``."""
    return str(tuple(tensor.shape))
