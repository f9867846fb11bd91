"""Nearest neighbours in embeddings: how evenly they occur, and whether they have the same label.

Ties count as their expectation when broken at random, as for recall: an item that ties for the last
places among the k nearest counts by its probability of being one of them. The order of the gallery
has no effect, and in a collapsed model all items are equally near neighbours of all.
"""

from typing import Any

import torch
from torch import Tensor

from .checks import MetricsError, Values, as_scores, as_tensor, shape


def nearest(similarity: Values, k: int, *, exclude_self: bool = False) -> Tensor:
    """Return each item's probability of being among a query's ``k`` nearest, ties at random.

    Args:
        similarity: (..., Q, G), greater is nearer.
        k: Number of neighbours.
        exclude_self: Whether to leave out the diagonal: query and gallery are the same items.

    Returns:
        (..., Q, G) float64 in [0, 1]; each query's sum is k.

    Raises:
        MetricsError: ``similarity`` has fewer than two axes, an empty axis or a number that is not
            finite, is not square despite ``exclude_self``, or has fewer than ``k`` neighbours.

    >>> nearest([[0.9, 0.5, 0.5, 0.1]], 2)
    tensor([[1.0000, 0.5000, 0.5000, 0.0000]], dtype=torch.float64)
    """
    scores = as_scores("similarity", similarity)
    queries, gallery = scores.shape[-2:]
    if exclude_self and queries != gallery:
        raise MetricsError(
            "with exclude_self the queries are the gallery and similarity is square, but its "
            f"shape is {shape(scores)}"
        )
    most = gallery - exclude_self
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= k <= most:
        raise MetricsError(
            f"k must be a whole number from 1 to {most}, the neighbours that there are, not {k!r}"
        )
    if exclude_self:
        itself = torch.eye(queries, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(itself, -torch.inf)
    least = scores.topk(k, dim=-1).values[..., -1:]
    above, tied = scores > least, scores == least
    left = k - above.sum(dim=-1, keepdim=True)
    share = left.double() / tied.sum(dim=-1, keepdim=True)
    return above.double() + tied * share


def k_occurrence(similarity: Values, k: int, *, exclude_self: bool = False) -> Tensor:
    """Return per item the number of queries that have it among their ``k`` nearest.

    Args:
        similarity: (..., Q, G), greater is nearer.
        k: Number of neighbours.
        exclude_self: As for :func:`lib.metrics.nearest`.

    Returns:
        (..., G) float64; its mean is k Q / G.

    Raises:
        MetricsError: As :func:`lib.metrics.nearest`.

    Source:
        Radovanović et al. (2010), section 2.

    >>> k_occurrence([[0.9, 0.1], [0.8, 0.2], [0.3, 0.6]], 1)
    tensor([2., 1.], dtype=torch.float64)
    """
    return nearest(similarity, k, exclude_self=exclude_self).sum(dim=-2)


def skewness(values: Values) -> Tensor:
    r"""Return the skewness over the last axis; 0 if all values are equal.

    .. math::

       \operatorname{E}[(x - \mu)^3] \, / \, \sigma^3

    Args:
        values: (..., n).

    Returns:
        (...) float64, without a unit.

    Raises:
        MetricsError: A value is not finite, or there are none.

    >>> skewness([0.0, 0.0, 0.0, 4.0])
    tensor(1.1547, dtype=torch.float64)
    """
    wide = as_scores("values", as_tensor("values", values)[..., None]).double().squeeze(-1)
    size = wide.abs().amax(dim=-1, keepdim=True)
    centred = wide - wide.mean(dim=-1, keepdim=True)
    # Spread at the level of rounding counts as zero; the scale keeps cubes finite.
    centred = torch.where(centred.abs() <= 1e-12 * size, 0.0, centred / size.clamp(min=1e-300))
    variance = centred.square().mean(dim=-1)
    third = centred.pow(3).mean(dim=-1)
    return torch.where(variance > 0, third / variance.clamp(min=1e-30).pow(1.5), 0.0)


def hubness(similarity: Values, k: int = 10, *, exclude_self: bool = False) -> Tensor:
    """Return the skewness of the k-occurrence of a gallery: 0 without hubs, greater with hubs.

    For image queries and a gallery of captions, pass the similarities (images, captions); for
    caption queries, their transpose.

    Args:
        similarity: (..., Q, G), greater is nearer.
        k: Number of neighbours.
        exclude_self: As for :func:`lib.metrics.nearest`.

    Returns:
        (...) float64, without a unit.

    Raises:
        MetricsError: As :func:`lib.metrics.nearest`.

    Source:
        Radovanović et al. (2010), equation 1.

    >>> hubness(torch.eye(3), k=1), hubness([[1.0, 0, 0, 0], [1.0, 0, 0, 0]], k=1)
    (tensor(0., dtype=torch.float64), tensor(1.1547, dtype=torch.float64))
    """
    return skewness(k_occurrence(similarity, k, exclude_self=exclude_self))


def neighbour_purity(
    similarity: Values,
    query_label: Values,
    gallery_label: Values,
    k: int = 10,
    *,
    exclude_self: bool = False,
) -> Tensor:
    """Return the share of the queries' ``k`` nearest items that have the query's label.

    Args:
        similarity: (..., Q, G), greater is nearer.
        query_label: (Q,) integers.
        gallery_label: (G,) integers.
        k: Number of neighbours.
        exclude_self: As for :func:`lib.metrics.nearest`, within one modality.

    Returns:
        (...) float64 in [0, 1]; at random, the probability that two items have the same label.

    Raises:
        MetricsError: As :func:`lib.metrics.nearest`, or the labels do not match the matrix.

    >>> neighbour_purity([[0.9, 0.5, 0.5, 0.1]], [0], [0, 0, 1, 1], k=2)
    tensor(0.7500, dtype=torch.float64)
    """
    near = nearest(similarity, k, exclude_self=exclude_self)
    labels = _labels("query_label", query_label, near.shape[-2], near.device)
    neighbours = _labels("gallery_label", gallery_label, near.shape[-1], near.device)
    return (near * (labels[:, None] == neighbours)).sum(dim=-1).mean(dim=-1) / k


def _labels(name: str, labels: Any, count: int, device: torch.device) -> Tensor:
    tensor = as_tensor(name, labels)
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    if not whole or tuple(tensor.shape) != (count,):
        raise MetricsError(
            f"{name} must be one whole number for each of {count} items, but it is {tensor.dtype} "
            f"of shape {shape(tensor)}"
        )
    return tensor.to(device)
