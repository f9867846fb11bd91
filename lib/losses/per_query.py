"""Contrastive losses for each direction and query, and how weights combine them.

Every loss takes the similarities (..., B, B) of a batch of B ≥ 2 pairs, pairs on the diagonal, and
returns (..., 2, B): ``i2t`` (a row is one image query) then ``t2i`` (a column is one caption
query). Its constant is a number or (...), so that each run of a stack may have its own.
Everything here depends on torch alone and works on any number of leading batch axes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.schedulers.actuators import Schedule
from lib.schedulers.checks import Number, check_number, check_similarity, check_temperature


def info_nce(similarity: Tensor, temperature: Number) -> Tensor:
    """Return the InfoNCE loss of each query in both directions.

    ℓ_i^i2t = −log softmax(S_i· / τ)_i and ℓ_j^t2i = −log softmax(S_·j / τ)_j (van den Oord et al.,
    2018; Radford et al., 2021).

    Args:
        similarity: (..., B, B); S_ij of image i and caption j, pairs on the diagonal.
        temperature: τ > 0, a number or (...).

    Returns:
        (..., 2, B): ``i2t`` then ``t2i``.

    Raises:
        ValueError: ``similarity`` is not (..., B, B), or B < 2; so do the losses below.

    >>> info_nce(torch.zeros(2, 2), 0.1)
    tensor([[0.6931, 0.6931],
            [0.6931, 0.6931]])
    """
    logits = _logits(similarity, temperature)
    return _partition(logits) - _positives(logits)


def label_smoothing(similarity: Tensor, temperature: Number, epsilon: Number) -> Tensor:
    """Return InfoNCE with smoothed targets: (1 − ε) at the pair and ε / B at every candidate.

    Szegedy et al. (CVPR 2016, section 7), on the softmax over the batch.

    Args:
        similarity: (..., B, B).
        temperature: τ > 0, a number or (...).
        epsilon: ε in [0, 1], a number or (...); 0 is InfoNCE.

    >>> label_smoothing(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1.0, 0.5)
    tensor([[0.5633, 0.5633],
            [0.5633, 0.5633]])
    """
    logits = _logits(similarity, temperature)
    check_number("epsilon", epsilon, "in [0, 1]", lambda value: 0 <= value <= 1)
    epsilon = _aligned(epsilon, logits)
    mean = torch.stack([logits.mean(dim=-1), logits.mean(dim=-2)], dim=-2)
    return _partition(logits) - (1 - epsilon) * _positives(logits) - epsilon * mean


def decoupled(similarity: Tensor, temperature: Number) -> Tensor:
    """Return the decoupled contrastive loss: InfoNCE without the pair in its denominator.

    ℓ_i = −S_ii / τ + log Σ_{j≠i} exp(S_ij / τ): DCL of Yeh et al. (ECCV 2022), its negatives those
    of the other modality. May be negative.

    >>> decoupled(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 0.5)
    tensor([[-2., -2.],
            [-2., -2.]])
    """
    logits = _logits(similarity, temperature)
    return _partition(_negatives(logits)) - _positives(logits)


def hardest_negatives(similarity: Tensor, temperature: Number, margin: Number) -> Tensor:
    """Return the hinge on the hardest negative of the batch: max_{j≠i} [α + S_ij − S_ii]_+.

    The max of hinges of VSE++ (Faghri et al., BMVC 2018). The mean over queries and the sum over
    directions are the paper's loss of a batch, divided by B.

    Args:
        similarity: (..., B, B).
        temperature: Plays no role; it is here so that every loss is called alike.
        margin: α > 0, a number or (...).

    >>> hardest_negatives(torch.tensor([[0.5, 0.4], [0.0, 0.3]]), 0.1, 0.2)
    tensor([[0.1000, 0.0000],
            [0.0000, 0.3000]])
    """
    check_similarity(similarity)
    check_number("margin", margin, "positive and finite", lambda value: value > 0)
    others = _negatives(similarity)
    hardest = torch.stack([others.amax(dim=-1), others.amax(dim=-2)], dim=-2)
    return F.relu(_aligned(margin, similarity) + hardest - _positives(similarity))


def sigmoid(similarity: Tensor, temperature: Number, bias: Number) -> Tensor:
    """Return each query's share of the sigmoid loss: a row's sum, or a column's.

    Every image–caption combination is a binary decision, Σ_ij −log σ(±(S_ij / τ + b)) / B, + for a
    pair: SigLIP (Zhai et al., ICCV 2023, algorithm 1, with t = 1 / τ). The mean over a direction's
    queries is that loss, the same in both: it has no directions, so weights of theirs that sum to 2
    change nothing.

    Args:
        similarity: (..., B, B).
        temperature: τ > 0, a number or (...).
        bias: b, a number or (...), learned in the paper from −10. One pair in B is a match, so
            that b = −log(B − 1) are the log-odds at similarity zero.

    >>> sigmoid(torch.zeros(2, 2), 1.0, 0.0)
    tensor([[1.3863, 1.3863],
            [1.3863, 1.3863]])
    """
    check_number("bias", bias, "finite", math.isfinite)
    logits = _logits(similarity, temperature) + _aligned(bias, similarity)
    sign = 2 * _diagonal(logits).to(logits.dtype) - 1
    decisions = -F.logsigmoid(sign * logits)
    return torch.stack([decisions.sum(dim=-1), decisions.sum(dim=-2)], dim=-2)


def multi_positive(similarity: Tensor, temperature: Number, *, group: Tensor) -> Tensor:
    """Return InfoNCE where all pairs of a group, such as the captions of one image, match.

    The mean of −log softmax(S_i· / τ)_k over the k of i's group: UniCL (Yang et al., CVPR 2022), or
    the ``out`` form of SupCon (Khosla et al., NeurIPS 2020) across modalities.

    Args:
        similarity: (..., B, B).
        temperature: τ > 0, a number or (...).
        group: (..., B) what each pair belongs to; where no two are equal, this is InfoNCE.

    >>> multi_positive(torch.zeros(2, 2), 0.1, group=torch.tensor([7, 7]))
    tensor([[0.6931, 0.6931],
            [0.6931, 0.6931]])
    """
    logits = _logits(similarity, temperature)
    if group.shape != similarity.shape[:-1]:
        raise ValueError(
            f"group must be (..., B) = {tuple(similarity.shape[:-1])}, what each pair of the batch "
            f"belongs to; its shape is {tuple(group.shape)}"
        )
    same = (group.unsqueeze(-1) == group.unsqueeze(-2)).to(logits.dtype)
    target = same / same.sum(dim=-1, keepdim=True)
    matched = torch.stack([(target * logits).sum(dim=-1), (target.mT * logits).sum(dim=-2)], dim=-2)
    return _partition(logits) - matched


def rince(similarity: Tensor, temperature: Number, q: Number, density: Number = 0.01) -> Tensor:
    """Return robust InfoNCE, made for pairs that may be wrong.

    ℓ_i = −e^{q s_ii} / q + (λ Σ_j e^{s_ij})^q / q with s = S / τ: RINCE of Chuang et al.
    (CVPR 2022). At q = 1 it is symmetric in the sense of noise-tolerant binary losses; as q → 0 it
    becomes InfoNCE + log λ.

    Args:
        similarity: (..., B, B).
        temperature: τ > 0, a number or (...). In single precision q S / τ must stay under 88.
        q: In (0, 1], a number or (...); the authors recommend 0.1 to 0.5.
        density: λ in (0, 1], a number or (...); the default is the authors'.

    >>> rince(torch.zeros(2, 2), 1.0, q=1.0, density=0.5)
    tensor([[0., 0.],
            [0., 0.]])
    """
    logits = _logits(similarity, temperature)
    for name, value in {"q": q, "density": density}.items():
        check_number(name, value, "in (0, 1]", lambda value: 0 < value <= 1)
    q, density = _aligned(q, logits), _aligned(density, logits)
    partition = density.log() + _partition(logits)
    # The difference of two powers, each less 1, keeps its digits at a small q.
    return (torch.expm1(q * partition) - torch.expm1(q * _positives(logits))) / q


@dataclass(frozen=True)
class Loss:
    """A loss of this module by what it takes beside the similarities and the temperature.

    Attributes:
        function: Returns (..., 2, B).
        constant: Name of its constant, if it has one.
        default: The constant's value in its paper.
        above, most: The constant lies above the one, and is at most the other.
        grouped: Whether it takes ``group``.
    """

    function: Callable[..., Tensor]
    constant: str | None = None
    default: float | None = None
    above: float = 0.0
    most: float = math.inf
    grouped: bool = False

    def check(self, constant: Number | None) -> None:
        """Refuse a constant that the loss cannot use.

        Raises:
            ValueError: It is out of its range, or there is one where the loss has none.
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
        """Return the loss of each query, (..., 2, B); the constant is the default unless given.

        Raises:
            ValueError: The loss needs ``group`` and it is missing, or as the loss itself.
        """
        if self.grouped:
            if group is None:
                raise ValueError(
                    f"the loss {self.function.__name__} needs group, (..., B): what each pair of "
                    "the batch belongs to, such as the number of its image"
                )
            return self.function(similarity, temperature, group=group)
        if self.constant is None:
            return self.function(similarity, temperature)
        return self.function(
            similarity, temperature, self.default if constant is None else constant
        )


LOSSES: dict[str, Loss] = {
    "info_nce": Loss(info_nce),
    "label_smoothing": Loss(label_smoothing, "epsilon", 0.1, most=1.0),
    "decoupled": Loss(decoupled),
    "hardest_negatives": Loss(hardest_negatives, "margin", 0.2),
    "sigmoid": Loss(sigmoid, "bias", -10.0, above=-math.inf),
    "multi_positive": Loss(multi_positive, grouped=True),
    "rince": Loss(rince, "q", 0.5, most=1.0),
}
"""The losses of the study by name."""


def weighted_mean(losses: Tensor, schedule: Schedule) -> Tensor:
    """Combine per-query losses: L = ½ Σ_d w_d · mean_i(a_i^d ℓ_i^d).

    Args:
        losses: (..., 2, B).
        schedule: Its weights (..., 2) and sample weights (..., 2, B).

    Returns:
        (...): one loss a run.
    """
    if losses.dim() < 2 or losses.shape[-2:] != (2, schedule.sample_weights.shape[-1]):
        raise ValueError(
            "losses must be (..., 2, B), i2t then t2i, of the batch that the schedule is for, B = "
            f"{schedule.sample_weights.shape[-1]}; its shape is {tuple(losses.shape)}"
        )
    per_direction = (schedule.sample_weights * losses).mean(dim=-1)
    return (schedule.weights * per_direction).mean(dim=-1)


def contrastive_loss(similarity: Tensor, schedule: Schedule) -> Tensor:
    """Return the scheduled symmetric InfoNCE loss of a batch, (...) for (..., B, B).

    >>> from lib.schedulers import Fixed
    >>> similarity = torch.eye(4)
    >>> contrastive_loss(similarity, Fixed()(similarity, temperature=0.1)).item() < 1e-3
    True
    """
    return weighted_mean(info_nce(similarity, schedule.temperature), schedule)


def _aligned(value: Number, like: Tensor) -> Tensor:
    """Return a constant (...) with two new last axes, in the type and on the device of ``like``."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor[..., None, None]


def _logits(similarity: Tensor, temperature: Number) -> Tensor:
    check_similarity(similarity)
    check_temperature(temperature)
    return similarity / _aligned(temperature, similarity)


def _partition(logits: Tensor) -> Tensor:
    return torch.stack([logits.logsumexp(dim=-1), logits.logsumexp(dim=-2)], dim=-2)


def _positives(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)


def _negatives(matrix: Tensor) -> Tensor:
    return matrix.masked_fill(_diagonal(matrix), -math.inf)
