"""Signals: one number per query and direction, computed from the similarity matrix.

A signal takes the similarities ``(..., B, B)`` of a batch of B pairs and the temperature ``(...)``,
and returns ``(..., 2, B)``: ``i2t`` (a row of the matrix is one image query) then ``t2i`` (a column
is one caption query). Signals check the shape; the caller must check that numbers are finite.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import Number, check_similarity, check_temperature


@dataclass(frozen=True)
class Signal:
    """A signal, and what the actuator ``sharpness`` needs for it.

    Args:
        read: Maps similarities (..., B, B) and a temperature, a number or (...), to (..., 2, B).
        scale: Maps similarities (..., B, B), the temperature (...) and a target (...) to the
            temperature (...) at which the logits reach the target. ``sharpness`` needs it.
        default_target: Target of ``sharpness`` unless another is given.
        target_below: Upper bound of every target.

    >>> contrast = Signal(lambda similarity, temperature: variance(similarity, temperature).sqrt())
    >>> contrast(torch.eye(2), 0.1)
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """

    read: Callable[[Tensor, Number], Tensor]
    scale: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    default_target: float | None = None
    target_below: float = math.inf

    def __call__(self, similarity: Tensor, temperature: Number) -> Tensor:
        """Return the signal of each query.

        Args:
            similarity: (..., B, B), pairs on the diagonal.
            temperature: τ > 0, a number or (...).

        Returns:
            (..., 2, B): ``i2t`` then ``t2i``.

        Raises:
            ValueError: As ``read``.
        """
        return self.read(similarity, temperature)


def variance(similarity: Tensor, temperature: Number) -> Tensor:
    r"""Return the population variance of each query's similarities.

    By the law of total variance, the difference between the means of its two directions is a
    difference in hubness between captions and images:

    .. math::

       \text{mean row variance} - \text{mean column variance}
       = \operatorname{Var}(\text{column means}) - \operatorname{Var}(\text{row means}) .

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: Plays no role; every signal is called alike.

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``, in the squared unit of the similarities.

    Raises:
        ValueError: ``similarity`` is not (..., B, B) of floats, or B < 2.

    Source:
        Pillai (2025) weights directions by variance.

    >>> variance(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 0.1)
    tensor([[0.2500, 0.2500],
            [0.0000, 0.0000]])
    """
    check_similarity(similarity, finite=False)
    return torch.stack([similarity.var(dim=dim, correction=0) for dim in (-1, -2)], dim=-2)


def mean_variances(similarity: Tensor) -> Tensor:
    r"""Return the mean variance of the rows and that of the columns, from sums.

    The mean over queries of :func:`variance`, up to rounding, at a fraction of the cost. With S
    centred and row means :math:`m_i`,

    .. math::

       \text{mean row variance} = \frac{1}{B^2} \sum_{ij} S_{ij}^2 - \frac{1}{B} \sum_i m_i^2 .

    It works under ``torch.compile``, ``torch.func.vmap`` and on any device.

    Args:
        similarity: (..., B, B). Half precision is converted to single precision.

    Returns:
        (..., 2): ``i2t`` (rows) then ``t2i`` (columns), in single precision or double.

    Raises:
        ValueError: ``similarity`` is not (..., B, B) of floats, or B < 2.

    >>> mean_variances(torch.tensor([[0.8, 0.0], [0.4, 0.2]]))
    tensor([0.0850, 0.0250])
    """
    check_similarity(similarity, finite=False)
    if similarity.dtype in (torch.float16, torch.bfloat16):
        similarity = similarity.float()
    # Centring changes no variance and keeps its digits if it is small beside the mean.
    centred = similarity - similarity.mean(dim=(-2, -1), keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(centred, dim=(-2, -1))
    square = (norm / similarity.shape[-1]).square()
    means = torch.stack([centred.mean(dim=-1), centred.mean(dim=-2)], dim=-2)
    return (square.unsqueeze(-1) - means.square().mean(dim=-1)).clamp(min=0)


def mean_variances_on_host(similarity: Tensor) -> tuple[float, float]:
    """Return :func:`mean_variances` of (B, B) on the CPU as two numbers, in fewer operations.

    Similarities are centred only if a variance is small beside the mean square. Numbers that are
    not finite give a result that is not finite.
    """
    if similarity.dtype in (torch.float32, torch.float64):
        size = similarity.shape[0]
        rows, columns, flat = similarity.sum(1), similarity.sum(0), similarity.reshape(-1)
        square = torch.dot(flat, flat).item()
        i2t = (square - torch.dot(rows, rows).item() / size) / size**2
        t2i = (square - torch.dot(columns, columns).item() / size) / size**2
        if min(i2t, t2i) >= square / size**2 / 16:
            return i2t, t2i
    i2t, t2i = mean_variances(similarity).tolist()
    return i2t, t2i


def entropy(similarity: Tensor, temperature: Number) -> Tensor:
    r"""Return the entropy of each query's softmax at the temperature, divided by log B.

    .. math::

       u_i = -\frac{1}{\log B} \sum_j p_{ij} \log p_{ij} ,
       \qquad p_{ij} = \operatorname{softmax}_j(S_{ij} / \tau)

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...).

    Returns:
        (..., 2, B) in [0, 1], ``i2t`` then ``t2i``: 0 if one candidate has all the probability,
        1 if all candidates have the same.

    Raises:
        ValueError: As :func:`variance`, or ``temperature`` is not positive and finite.

    Source:
        Pillai (2025) compares variance with entropy.

    >>> entropy(torch.zeros(2, 2), 0.1)
    tensor([[1., 1.],
            [1., 1.]])
    """
    check_similarity(similarity, finite=False)
    temperature = check_temperature(temperature, similarity.shape[:-2])
    tau = torch.as_tensor(temperature, dtype=similarity.dtype, device=similarity.device)
    logits = similarity / tau[..., None, None]
    directions = []
    for dim in (-1, -2):
        log_p = torch.log_softmax(logits, dim=dim)
        directions.append(-(log_p.exp() * log_p).sum(dim=dim))
    # Rounding must not give an entropy just above 1 or below 0.
    return (torch.stack(directions, dim=-2) / math.log(similarity.shape[-1])).clamp(0, 1)


def spread(similarity: Tensor, temperature: Number) -> Tensor:
    """Return the range, maximum minus minimum, of each query's similarities.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: Plays no role; every signal is called alike.

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``, in the unit of the similarities.

    Raises:
        ValueError: As :func:`variance`.

    Source:
        Pillai (2025) compares variance with spread, there of cosines.

    >>> spread(torch.tensor([[1.0, 0.0], [0.5, 0.25]]), 0.1)
    tensor([[1.0000, 0.2500],
            [0.5000, 0.2500]])
    """
    check_similarity(similarity, finite=False)
    return torch.stack([similarity.amax(dim) - similarity.amin(dim) for dim in (-1, -2)], dim=-2)


def margin(similarity: Tensor, temperature: Number) -> Tensor:
    r"""Return the similarity of each query's pair minus the mean of its negatives.

    .. math::

       u_i = S_{ii} - \frac{1}{B - 1} \sum_{j \neq i} S_{ij}

    Its mean is the same in both directions for every matrix, so no scheduler can weight directions
    by it. It is here to show that, and to weight queries by hand.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: Plays no role; every signal is called alike.

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``, in the unit of the similarities.

    Raises:
        ValueError: As :func:`variance`.

    >>> margins = margin(torch.tensor([[0.8, 0.0], [0.4, 0.2]]), 0.1)
    >>> margins
    tensor([[ 0.8000, -0.2000],
            [ 0.4000,  0.2000]])
    >>> margins.mean(dim=-1)
    tensor([0.3000, 0.3000])
    """
    check_similarity(similarity, finite=False)
    size = similarity.shape[-1]
    positive = similarity.diagonal(dim1=-2, dim2=-1)
    negatives = torch.stack([similarity.sum(dim=-1), similarity.sum(dim=-2)], dim=-2)
    negatives = (negatives - positive.unsqueeze(-2)) / (size - 1)
    return positive.unsqueeze(-2) - negatives


def temperature_at_deviation(similarity: Tensor, temperature: Tensor, target: Tensor) -> Tensor:
    """Return the temperature at which the standard deviation of all logits is ``target``."""
    return similarity.flatten(-2).std(dim=-1, correction=0) / target


def temperature_at_range(similarity: Tensor, temperature: Tensor, target: Tensor) -> Tensor:
    """Return the temperature at which the mean range of the queries' logits is ``target``."""
    return spread(similarity, temperature).mean(dim=(-2, -1)) / target


def temperature_at_entropy(similarity: Tensor, temperature: Tensor, target: Tensor) -> Tensor:
    """Return the temperature at which the mean normalised entropy of both directions is ``target``.

    Newton's method in log τ: the derivative of the entropy of softmax(z) with respect to log τ is
    the variance of z under the softmax. The entropy grows with τ, so that each step has the right
    sign; a step changes τ by at most a factor of two.

    Args:
        similarity: (..., B, B).
        temperature: (...) start of the search, near the solution.
        target: (...) in (0, 1).
    """
    size = similarity.shape[-1]
    log_tau = temperature.log()
    for _ in range(8):
        logits = similarity / log_tau.exp()[..., None, None]
        value, slope = torch.zeros_like(log_tau), torch.zeros_like(log_tau)
        for dim in (-1, -2):
            log_p = torch.log_softmax(logits, dim=dim)
            p = log_p.exp()
            h = -(p * log_p).sum(dim=dim)
            value += h.mean(dim=-1) / 2
            # Var_p(z) = Var_p(log p), since the two differ by a constant.
            slope += ((p * log_p**2).sum(dim=dim) - h**2).mean(dim=-1) / 2
        error = target * math.log(size) - value
        step = error / slope.clamp(min=1e-6)
        log_tau = log_tau + step.clamp(-math.log(2), math.log(2))
        log_tau = log_tau.clamp(math.log(1e-3), math.log(1e3))
    return log_tau.exp()


SIGNALS: dict[str, Signal] = {
    "variance": Signal(variance, temperature_at_deviation, default_target=1.5),
    "entropy": Signal(entropy, temperature_at_entropy, default_target=0.8, target_below=1.0),
    "spread": Signal(spread, temperature_at_range, default_target=8.0),
}
"""The signals of the study by name; add an entry to register a signal.

Each maps similarities (..., B, B) and a temperature, a number or (...), to (..., 2, B). The target
of ``sharpness`` is the standard deviation of the logits (``variance``), their mean range
(``spread``), or their mean entropy as a fraction of log B (``entropy``).

>>> sorted(SIGNALS)
['entropy', 'spread', 'variance']
>>> SIGNALS["spread"](torch.eye(2), 0.1)
tensor([[1., 1.],
        [1., 1.]])
>>> SIGNALS["entropy"].default_target
0.8
"""
