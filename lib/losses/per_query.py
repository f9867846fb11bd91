"""Contrastive losses per direction and query, and their weighted mean.

Every loss takes the similarities (..., B, B) of a batch of B ≥ 2 pairs, pairs on the diagonal, and
returns (..., 2, B): ``i2t`` (a row is one image query) then ``t2i`` (a column is one caption
query). A constant is a number, or (...) with one number per run of a stack.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..schedulers._checks import (
    Number,
    check_number,
    check_similarity,
    check_temperature,
    fitted,
)
from ..schedulers.actuators import Schedule


def info_nce(similarity: Tensor, temperature: Number) -> Tensor:
    r"""Return the InfoNCE loss of each query in both directions.

    .. math::

       \ell_i^{\text{i2t}} = -\log \, \frac{\exp(S_{ii} / \tau)}{\sum_j \exp(S_{ij} / \tau)} ,

    .. math::

       \ell_j^{\text{t2i}} = -\log \, \frac{\exp(S_{jj} / \tau)}{\sum_i \exp(S_{ij} / \tau)}

    Args:
        similarity: (..., B, B); :math:`S_{ij}` of image i and caption j, pairs on the diagonal.
        temperature: τ > 0, a number or (...).

    Returns:
        (..., 2, B), at least 0: ``i2t`` then ``t2i``, in nats.

    Raises:
        ValueError: ``similarity`` is not (..., B, B) of floats, B < 2, or, for a single run on the
            CPU, a number is not finite; or ``temperature`` is not positive.

    Source:
        van den Oord et al. (2018), equation 4; for images and captions, Radford et al. (2021),
        figure 3.

    >>> info_nce(torch.zeros(2, 2), 0.1)
    tensor([[0.6931, 0.6931],
            [0.6931, 0.6931]])
    """
    logits = _logits(similarity, temperature)
    return _partition(logits) - _positives(logits)


def label_smoothing(similarity: Tensor, temperature: Number, epsilon: Number) -> Tensor:
    r"""Return InfoNCE with smoothed targets: 1 − ε at the pair, and ε / B at every candidate.

    .. math::

       \ell_i = (1 - \varepsilon)\, \ell_i^{\text{InfoNCE}}
       - \frac{\varepsilon}{B} \sum_j \log \operatorname{softmax}_j(S_{ij} / \tau)

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...).
        epsilon: ε in [0, 1], a number or (...); 0 is InfoNCE.

    Returns:
        (..., 2, B), at least 0: ``i2t`` then ``t2i``.

    Raises:
        ValueError: As :func:`info_nce`, or ``epsilon`` is out of its range.

    Source:
        Szegedy et al. (2016), section 7, on the softmax over the batch.

    >>> label_smoothing(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1.0, 0.5)
    tensor([[0.5633, 0.5633],
            [0.5633, 0.5633]])
    """
    logits = _logits(similarity, temperature)
    epsilon = _constant("epsilon", epsilon, logits, "in [0, 1]", lambda value: 0 <= value <= 1)
    mean = torch.stack([logits.mean(dim=-1), logits.mean(dim=-2)], dim=-2)
    return _partition(logits) - (1 - epsilon) * _positives(logits) - epsilon * mean


def decoupled(similarity: Tensor, temperature: Number, *, group: Tensor | None = None) -> Tensor:
    r"""Return the decoupled contrastive loss: InfoNCE without the pair in the denominator.

    .. math::

       \ell_i = -\frac{S_{ii}}{\tau} + \log \sum_{j \neq i} \exp(S_{ij} / \tau)

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...).
        group: (..., B), as for :func:`multi_positive`; rows of one group are no negatives of each
            other.

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``, possibly negative.

    Raises:
        ValueError: As :func:`info_nce`, or ``group`` has another shape.

    Source:
        DCL of Yeh et al. (2022), with the negatives of the other modality.

    >>> decoupled(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 0.5)
    tensor([[-2., -2.],
            [-2., -2.]])
    """
    logits = _logits(similarity, temperature)
    return _partition(_negatives(logits, group)) - _positives(logits)


def hardest_negatives(
    similarity: Tensor, temperature: Number, margin: Number, *, group: Tensor | None = None
) -> Tensor:
    r"""Return the hinge on the hardest negative of the batch.

    .. math::

       \ell_i = \max_{j \neq i} \, \max(0,\; \alpha + S_{ij} - S_{ii})

    The sum over directions of the mean over queries is the paper's loss of a batch, divided by B.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: Plays no role; every loss is called alike.
        margin: α > 0, a number or (...), in the unit of the similarities.
        group: (..., B), as for :func:`multi_positive`; rows of one group are no negatives of each
            other.

    Returns:
        (..., 2, B), at least 0: ``i2t`` then ``t2i``.

    Raises:
        ValueError: As :func:`info_nce` for ``similarity``, ``margin`` is not positive, or ``group``
            has another shape.

    Source:
        The max of hinges of VSE++, Faghri et al. (2018).

    >>> hardest_negatives(torch.tensor([[0.5, 0.4], [0.0, 0.3]]), 0.1, 0.2)
    tensor([[0.1000, 0.0000],
            [0.0000, 0.3000]])
    """
    check_similarity(similarity)
    check_temperature(temperature, similarity.shape[:-2])
    margin = _constant("margin", margin, similarity, "positive and finite", lambda v: v > 0)
    others = _negatives(similarity, group)
    hardest = torch.stack([others.amax(dim=-1), others.amax(dim=-2)], dim=-2)
    return F.relu(margin + hardest - _positives(similarity))


def sigmoid(
    similarity: Tensor, temperature: Number, bias: Number, *, group: Tensor | None = None
) -> Tensor:
    r"""Return each query's share of the sigmoid loss: the sum of its row or column.

    Every combination of an image and a caption is a binary decision, so that a row has B of them:

    .. math::

       \ell_i = -\sum_j \log \sigma\bigl( z_{ij} (S_{ij} / \tau + b) \bigr) ,
       \qquad z_{ij} = 1 \text{ for a pair, else } -1

    The mean over queries is the paper's loss, and the same in both directions: weights of
    directions that sum to 2 change nothing.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...); the paper's t is 1 / τ.
        bias: b, a number or (...), learned in the paper, from −10 on. One combination in B is a
            pair: b = −log(B − 1) gives these log-odds at similarity zero.
        group: (..., B), as for :func:`multi_positive`; all combinations in one group are pairs.

    Returns:
        (..., 2, B), at least 0: ``i2t`` then ``t2i``.

    Raises:
        ValueError: As :func:`info_nce`, ``bias`` is not finite, or ``group`` has another shape.

    Source:
        SigLIP, Zhai et al. (2023), algorithm 1.

    >>> sigmoid(torch.zeros(2, 2), 1.0, 0.0)
    tensor([[1.3863, 1.3863],
            [1.3863, 1.3863]])
    """
    logits = _logits(similarity, temperature)
    logits = logits + _constant("bias", bias, logits, "finite", math.isfinite)
    sign = 2 * _same_group(logits, group).to(logits.dtype) - 1
    decisions = -F.logsigmoid(sign * logits)
    return torch.stack([decisions.sum(dim=-1), decisions.sum(dim=-2)], dim=-2)


def multi_positive(similarity: Tensor, temperature: Number, *, group: Tensor) -> Tensor:
    r"""Return InfoNCE in which all pairs of a group, such as the captions of one image, match.

    With :math:`G_i` the pairs of the group of i, including i,

    .. math::

       \ell_i = -\frac{1}{|G_i|} \sum_{k \in G_i} \log \operatorname{softmax}_k(S_{ik} / \tau) .

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...).
        group: (..., B), or (B,) for all runs: the group of each pair. If all groups are distinct,
            this is InfoNCE.

    Returns:
        (..., 2, B), at least 0: ``i2t`` then ``t2i``.

    Raises:
        ValueError: As :func:`info_nce`, or ``group`` has another shape.

    Source:
        UniCL, Yang et al. (2022); across modalities, the ``out`` form of SupCon, Khosla et al.
        (2020).

    >>> multi_positive(torch.zeros(2, 2), 0.1, group=torch.tensor([7, 7]))
    tensor([[0.6931, 0.6931],
            [0.6931, 0.6931]])
    """
    logits = _logits(similarity, temperature)
    same = _same_group(logits, group).to(logits.dtype)
    target = same / same.sum(dim=-1, keepdim=True)
    matched = torch.stack([(target * logits).sum(dim=-1), (target.mT * logits).sum(dim=-2)], dim=-2)
    return _partition(logits) - matched


def rince(similarity: Tensor, temperature: Number, q: Number, density: Number = 0.01) -> Tensor:
    r"""Return robust InfoNCE, made for pairs that may be wrong.

    With s = S / τ,

    .. math::

       \ell_i = -\frac{e^{q s_{ii}}}{q}
       + \frac{\bigl( \lambda \sum_j e^{s_{ij}} \bigr)^q}{q} .

    At q = 1 the loss is symmetric in the sense of noise-tolerant binary losses; as q → 0 it
    becomes InfoNCE + log λ.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        temperature: τ > 0, a number or (...). In single precision q S / τ must stay under 88.
        q: In (0, 1], a number or (...); the authors recommend 0.1 to 0.5.
        density: λ in (0, 1], a number or (...); the default is the authors'.

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``, possibly negative.

    Raises:
        ValueError: As :func:`info_nce`, or ``q`` or ``density`` is out of its range.

    Source:
        RINCE, Chuang et al. (2022).

    >>> rince(torch.zeros(2, 2), 1.0, q=1.0, density=0.5)
    tensor([[0., 0.],
            [0., 0.]])
    """
    logits = _logits(similarity, temperature)
    q, density = (
        _constant(name, value, logits, "in (0, 1]", lambda value: 0 < value <= 1)
        for name, value in {"q": q, "density": density}.items()
    )
    partition = density.log() + _partition(logits)
    # expm1 keeps the digits of the difference at a small q.
    return (torch.expm1(q * partition) - torch.expm1(q * _positives(logits))) / q


@dataclass(frozen=True)
class Loss:
    """A loss and its constant, so that a loop can call all of :data:`lib.losses.LOSSES` alike.

    Args:
        function: Maps similarities (..., B, B), a temperature and perhaps a constant to
            (..., 2, B).
        constant: Name of the constant, if there is one.
        default: The constant's value in the loss's paper.
        above: The constant lies above this bound.
        most: The constant's greatest value.
        grouped: Whether ``function`` needs ``group``.
        takes_group: Whether ``function`` takes ``group`` without needing it.

    >>> loss = LOSSES["label_smoothing"]
    >>> loss.constant, loss.default
    ('epsilon', 0.1)
    >>> loss(torch.eye(2), temperature=1.0)
    tensor([[0.3633, 0.3633],
            [0.3633, 0.3633]])
    """

    function: Callable[..., Tensor]
    constant: str | None = None
    default: float | None = None
    above: float = 0.0
    most: float = math.inf
    grouped: bool = False
    takes_group: bool = False

    def check(self, constant: Number | None) -> None:
        """Refuse a constant that the loss cannot use.

        Args:
            constant: A number or (...); None is the default.

        Raises:
            ValueError: ``constant`` is out of its range, or the loss has no constant.
        """
        name = self.function.__name__
        if constant is None:
            return
        if self.constant is None:
            raise ValueError(f"the loss {name} has no constant; it was given {constant}")
        value = torch.as_tensor(constant)
        if not bool((value.isfinite() & (value > self.above) & (value <= self.most)).all()):
            upper = f"{self.most:g}]" if math.isfinite(self.most) else "∞)"
            lower = f"({self.above:g}".replace("inf", "∞")
            raise ValueError(
                f"{self.constant} of the loss {name} must be finite and in {lower}, {upper}; "
                f"it is {constant}"
            )

    def __call__(
        self,
        similarity: Tensor,
        temperature: Number,
        constant: Number | None = None,
        *,
        group: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each query.

        Args:
            similarity: (..., B, B), pairs on the diagonal.
            temperature: τ > 0, a number or (...).
            constant: A number or (...); None is the default.
            group: (..., B) the group of each pair, for a loss that needs or takes it.

        Returns:
            (..., 2, B): ``i2t`` then ``t2i``.

        Raises:
            ValueError: As ``function``, ``group`` is missing, or the loss takes none.
        """
        if self.grouped and group is None:
            raise ValueError(
                f"the loss {self.function.__name__} needs group, (..., B): the group of each "
                "pair of the batch, such as the number of its image"
            )
        if group is not None and not (self.grouped or self.takes_group):
            takers = ", ".join(name for name, loss in LOSSES.items() if loss.takes_group)
            raise ValueError(
                f"the loss {self.function.__name__} takes no group; multi_positive is info_nce "
                f"with groups, and {takers} take them"
            )
        constants = (
            () if self.constant is None else (self.default if constant is None else constant,)
        )
        groups = {} if group is None else {"group": group}
        return self.function(similarity, temperature, *constants, **groups)


LOSSES: dict[str, Loss] = {
    "info_nce": Loss(info_nce),
    "label_smoothing": Loss(label_smoothing, "epsilon", 0.1, most=1.0),
    "decoupled": Loss(decoupled, takes_group=True),
    "hardest_negatives": Loss(hardest_negatives, "margin", 0.2, takes_group=True),
    "sigmoid": Loss(sigmoid, "bias", -10.0, above=-math.inf, takes_group=True),
    "multi_positive": Loss(multi_positive, grouped=True),
    "rince": Loss(rince, "q", 0.5, most=1.0),
}
"""The losses of the study by name, all called alike.

>>> [name for name, loss in LOSSES.items() if loss.constant is None]
['info_nce', 'decoupled', 'multi_positive']
>>> LOSSES["hardest_negatives"](torch.eye(2), temperature=0.1).sum()
tensor(0.)
"""


def weighted_mean(losses: Tensor, schedule: Schedule) -> Tensor:
    r"""Return the mean of the queries' losses under the weights of a schedule.

    .. math::

       L = \frac{1}{2} \sum_d w_d \, \frac{1}{B} \sum_i a_i^d \, \ell_i^d

    Args:
        losses: (..., 2, B), ``i2t`` then ``t2i``.
        schedule: Weights (..., 2) and sample weights (..., 2, B) of the same batch.

    Returns:
        (...): one loss per run.

    Raises:
        ValueError: ``losses`` is not (..., 2, B) with the B of the schedule.

    >>> from lib.schedulers import Scheduler
    >>> similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    >>> schedule = Scheduler("variance", "direction")(similarity, temperature=0.1)
    >>> weighted_mean(info_nce(similarity, temperature=0.1), schedule)
    tensor(0.8384)
    """
    if losses.dim() < 2 or losses.shape[-2:] != (2, schedule.sample_weights.shape[-1]):
        raise ValueError(
            "losses must be (..., 2, B), i2t then t2i, of the schedule's batch, B = "
            f"{schedule.sample_weights.shape[-1]}; its shape is {tuple(losses.shape)}"
        )
    per_direction = (schedule.sample_weights * losses).mean(dim=-1)
    return (schedule.weights * per_direction).mean(dim=-1)


def contrastive_loss(similarity: Tensor, schedule: Schedule) -> Tensor:
    """Return the scheduled symmetric InfoNCE loss of a batch.

    :func:`lib.losses.weighted_mean` of :func:`lib.losses.info_nce` at the schedule's temperature.

    Args:
        similarity: (..., B, B), pairs on the diagonal.
        schedule: The schedule of the same batch.

    Returns:
        (...): one loss per run.

    Raises:
        ValueError: As :func:`lib.losses.info_nce`, or ``schedule`` has another B.

    >>> from lib.schedulers import Fixed
    >>> contrastive_loss(torch.eye(4), Fixed()(torch.eye(4), temperature=0.1)).item() < 1e-3
    True
    """
    return weighted_mean(info_nce(similarity, schedule.temperature), schedule)


def _aligned(value: Number, like: Tensor) -> Tensor:
    """Return a constant (...) with two new last axes, in the type and on the device of ``like``."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor[..., None, None]


def _constant(
    name: str, value: Number, like: Tensor, rule: str, good: Callable[[float], bool]
) -> Tensor:
    """Return a checked constant, aligned."""
    value = fitted(name, value, like.shape[:-2])
    check_number(name, value, rule, good)
    return _aligned(value, like)


def _logits(similarity: Tensor, temperature: Number) -> Tensor:
    check_similarity(similarity)
    temperature = check_temperature(temperature, similarity.shape[:-2])
    return similarity / _aligned(temperature, similarity)


def _partition(logits: Tensor) -> Tensor:
    return torch.stack([logits.logsumexp(dim=-1), logits.logsumexp(dim=-2)], dim=-2)


def _positives(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)


def _same_group(matrix: Tensor, group: Tensor | None) -> Tensor:
    """Return whether a row and a column are of one group, (..., B, B) or (B, B)."""
    if group is None:
        return torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    group = as_group(group, matrix.shape[:-1]).to(matrix.device)
    return group.unsqueeze(-1) == group.unsqueeze(-2)


def as_group(group: Tensor | Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return the group of each row, for a batch of ``shape`` (..., B), as a tensor.

    Raises:
        ValueError: ``group`` is not integers of ``shape``, or (B,).
    """
    wanted = f"group must be (..., B) = {tuple(shape)}, or (B,), of integers, one per row of the "
    wanted += "batch: its image"
    try:
        tensor = torch.as_tensor(group)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{wanted}; it is {group!r}") from None
    integers = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if tuple(tensor.shape) not in (tuple(shape), tuple(shape[-1:])) or not integers:
        raise ValueError(f"{wanted}; it is {tuple(tensor.shape)} of {tensor.dtype}")
    return tensor.long()  # Not every type can be compared or gathered.


def _negatives(matrix: Tensor, group: Tensor | None) -> Tensor:
    return matrix.masked_fill(_same_group(matrix, group), -math.inf)
