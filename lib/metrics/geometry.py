"""The geometry of embeddings: collapse, and the positions of the two modalities."""

import math

import torch
from torch import Tensor

from .checks import MetricsError, Values, as_pair, as_scores

COLLAPSE_SPREAD = 0.05
"""Spread below which embeddings count as collapsed: their mean cosine is above 0.95. Trained
encoders, and even untrained ones, whose embeddings lie in a narrow cone, spread by 0.1 or more.

Source:
    Liang et al. (2022) show the cones.

>>> bool(spread([[1.0, 0.0], [0.0, 1.0]]) > COLLAPSE_SPREAD)
True
"""


def spread(embeddings: Values) -> Tensor:
    r"""Return how far embeddings lie from their mean, as a share of their mean squared length.

    .. math::

       1 - \frac{\lVert \bar x \rVert^2}{\frac{1}{n} \sum_i \lVert x_i \rVert^2} ,
       \qquad \bar x = \frac{1}{n} \sum_i x_i

    For unit vectors this is 1 minus the mean cosine of all pairs, including each vector with
    itself: 0 if all are equal, 1 if their mean is zero.

    Args:
        embeddings: (..., n, d).

    Returns:
        (...) float64 in [0, 1]; 0 if all embeddings are zero.

    Raises:
        MetricsError: ``embeddings`` has fewer than two axes, an empty axis, or a coordinate that is
            not finite.

    >>> spread(torch.ones(5, 3)), spread([[1.0, 0.0], [-1.0, 0.0]])
    (tensor(0., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    wide = as_scores("embeddings", embeddings).double()
    # Scaling keeps squares finite; centring first keeps digits that a difference would lose.
    wide = wide / wide.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=1e-300)
    centred = wide - wide.mean(dim=-2, keepdim=True)
    size = wide.square().sum(dim=-1).mean(dim=-1)
    return centred.square().sum(dim=-1).mean(dim=-1) / size.clamp(min=1e-300)


def collapsed(embeddings: Values) -> bool:
    """Return whether embeddings have collapsed to nearly one point, so that retrieval is at chance.

    Args:
        embeddings: (..., n, d).

    Returns:
        Whether the spread of any run is below :data:`lib.metrics.COLLAPSE_SPREAD`.

    Raises:
        MetricsError: As :func:`lib.metrics.spread`.

    >>> collapsed(torch.ones(5, 3)), collapsed(torch.eye(3))
    (True, False)
    """
    return bool((spread(embeddings) < COLLAPSE_SPREAD).any())


def modality_gap(image: Values, text: Values) -> Tensor:
    """Return the distance between the mean image and the mean caption.

    Args:
        image: (..., N, d), of unit length.
        text: (..., M, d), of unit length, with the same batch axes.

    Returns:
        (...) float64 between 0 and 2.

    Raises:
        MetricsError: A coordinate is not finite, or the shapes or devices do not match.

    Source:
        Liang et al. (2022).

    >>> modality_gap([[1.0, 0.0]], [[-1.0, 0.0]])
    tensor(2., dtype=torch.float64)
    """
    means = [side.double().mean(dim=-2) for side in as_pair(image, text)]
    return (means[0] - means[1]).square().sum(dim=-1).sqrt()


def alignment(image: Values, text: Values) -> Tensor:
    """Return the mean squared distance of matched pairs; lower is closer.

    Args:
        image: (..., n, d), of unit length.
        text: (..., n, d), of unit length; row i matches row i of ``image``.

    Returns:
        (...) float64 between 0 and 4.

    Raises:
        MetricsError: A coordinate is not finite, or the shapes or devices differ.

    Source:
        Wang and Isola (2020), with α = 2.

    >>> alignment([[1.0, 0.0]], [[0.0, 1.0]])
    tensor(2., dtype=torch.float64)
    """
    images, texts = as_pair(image, text, matched=True)
    difference = images.double() - texts.double()
    return difference.square().sum(dim=-1).mean(dim=-1)


def relative_alignment(image: Values, text: Values) -> Tensor:
    """Return the mean squared distance of matched pairs over that of all pairs, matched or not.

    :func:`lib.metrics.alignment` also falls when all embeddings approach each other, and is zero in
    a collapsed model; this ratio shows whether a pair is closer than any two embeddings.

    Args:
        image: (..., n, d), of any length.
        text: (..., n, d); row i matches row i of ``image``.

    Returns:
        (...) float64: 0 if matched pairs coincide, 1 if they are no closer than any pair, or if all
        embeddings are equal.

    Raises:
        MetricsError: As :func:`lib.metrics.alignment`.

    >>> relative_alignment([[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    tensor(0.5000, dtype=torch.float64)
    """
    sides = [side.double() for side in as_pair(image, text, matched=True)]
    sizes = [side.square().sum(dim=-1).mean(dim=-1) for side in sides]
    means = [side.mean(dim=-2) for side in sides]
    between = sizes[0] + sizes[1] - 2 * (means[0] * means[1]).sum(dim=-1)
    one = between <= 1e-12 * (sizes[0] + sizes[1])
    return torch.where(one, 1.0, alignment(*sides) / torch.where(one, 1.0, between))


def uniformity(embeddings: Values, t: float = 2.0) -> Tensor:
    r"""Return the log of the mean Gaussian kernel over pairs; lower is more uniform.

    .. math::

       \log \, \frac{2}{n (n - 1)} \sum_{i < j} \exp(-t \, \lVert x_i - x_j \rVert^2) .

    Args:
        embeddings: (..., n, d) with n ≥ 2, of unit length.
        t: Sharpness of the kernel, t > 0.

    Returns:
        (...) float64, at most 0.

    Raises:
        MetricsError: As :func:`lib.metrics.spread`, or n < 2, or ``t`` is not positive.

    Source:
        Wang and Isola (2020).

    >>> uniformity([[1.0, 0.0], [-1.0, 0.0]])
    tensor(-8., dtype=torch.float64)
    """
    wide = as_scores("embeddings", embeddings).double()
    count = wide.shape[-2]
    if count < 2:
        raise MetricsError(
            f"embeddings must be two or more for uniformity, but there are {count}: its shape is "
            f"{tuple(wide.shape)}"
        )
    if not (math.isfinite(t) and t > 0):
        raise MetricsError(f"t must be positive and finite, not {t}")
    square = wide.square().sum(dim=-1)
    distance = square[..., :, None] + square[..., None, :] - 2 * wide @ wide.mT
    upper = torch.triu_indices(count, count, 1, device=wide.device)
    return (-t * distance.clamp(min=0))[..., upper[0], upper[1]].exp().mean(dim=-1).log()
