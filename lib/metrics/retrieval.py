"""Recall@K, median rank and rSum in both directions, one set of numbers per run of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import Values, as_ks
from .ranking import Ranks, ranks, ranks_from_embeddings


@dataclass(frozen=True, eq=False)
class PerQuery:
    """The metrics of each of a direction's Q queries, for intervals that are bootstrapped by image.

    Args:
        image: (Q,) int64; the image that each query is, or belongs to.
        hit_probability: By K, (..., Q) float64 in [0, 1].
        expected_rank: (..., Q) float64, from 1.

    >>> similarity = torch.eye(3)
    >>> measured = retrieval_metrics(similarity, [0, 1, 2], ks=(1,), per_query=True)
    >>> measured.t2i.per_query.expected_rank
    tensor([1., 1., 1.], dtype=torch.float64)
    """

    image: Tensor
    hit_probability: Mapping[int, Tensor]
    expected_rank: Tensor


@dataclass(frozen=True, eq=False)
class DirectionMetrics:
    """One direction's metrics.

    Args:
        recall: By K, (...) float64 in percent: the mean over queries of the probability of a hit.
        median_rank: (...) float64; the median over queries of the expected rank of the first
            positive, from 1.
        queries: Number of queries.
        gallery: Number of items that each query ranks.
        trivial: The Ks at which every ranking scores 100 %, since the gallery is too small.
        per_query: The metrics of each query, or None.

    >>> i2t = retrieval_metrics(torch.eye(3), [0, 1, 2], ks=(1, 3)).i2t
    >>> float(i2t.recall[1]), float(i2t.median_rank), i2t.trivial
    (100.0, 1.0, (3,))
    """

    recall: Mapping[int, Tensor]
    median_rank: Tensor
    queries: int
    gallery: int
    trivial: tuple[int, ...]
    per_query: PerQuery | None = None

    @classmethod
    def of(cls, ranked: Ranks, ks: Sequence[int], *, per_query: bool = False) -> "DirectionMetrics":
        """Return the metrics of a direction from the ranks of its queries.

        Args:
            ranked: The ranks, (..., Q).
            ks: Cut-offs, whole numbers from 1 on.
            per_query: Whether to keep the metrics of each query.

        Returns:
            The metrics, (...) each.
        """
        hits = {k: ranked.hit_probability(k) for k in ks}
        expected = ranked.expected()
        # With q positives among G items, every ranking has one among its first G − q + 1.
        sure = ranked.gallery - int(ranked.positives.min()) + 1
        return cls(
            recall={k: 100 * hit.mean(dim=-1) for k, hit in hits.items()},
            median_rank=_median(expected),
            queries=len(ranked.image),
            gallery=ranked.gallery,
            trivial=tuple(k for k in ks if k >= sure),
            per_query=PerQuery(ranked.image, hits, expected) if per_query else None,
        )


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """Retrieval in both directions, tensors of shape (...) for (..., N, M) similarities.

    Args:
        i2t: Image queries; a hit is any of the image's captions.
        t2i: Caption queries; a hit is the caption's image.
        images_without_captions: Number of images in the gallery of ``t2i`` that are not queries.

    >>> measured = retrieval_metrics(torch.eye(20), torch.arange(20))
    >>> float(measured.rsum), [float(rank) for rank in measured.median_ranks]
    (600.0, [1.0, 1.0])
    """

    i2t: DirectionMetrics
    t2i: DirectionMetrics
    images_without_captions: int

    @property
    def ks(self) -> tuple[int, ...]:
        """The cut-offs."""
        return tuple(self.i2t.recall)

    @property
    def recalls(self) -> tuple[Tensor, ...]:
        """The recalls in percent: i2t at each K, then t2i at each K."""
        return (*self.i2t.recall.values(), *self.t2i.recall.values())

    @property
    def rsum(self) -> Tensor:
        """The sum of the recalls: rSum, of six, for ``ks=(1, 5, 10)``."""
        return torch.stack(self.recalls).sum(dim=0)

    @property
    def median_ranks(self) -> tuple[Tensor, Tensor]:
        """The median rank of i2t and that of t2i."""
        return self.i2t.median_rank, self.t2i.median_rank

    @property
    def trivial(self) -> tuple[tuple[str, int], ...]:
        """The (direction, K) at which every ranking scores 100 %: the gallery is too small."""
        return (*(("i2t", k) for k in self.i2t.trivial), *(("t2i", k) for k in self.t2i.trivial))

    def as_dict(self) -> dict[str, float]:
        """Return the numbers of a single run by name.

        Returns:
            ``i2t R@1`` … ``t2i median rank``, ``rSum``: recalls and their sum in percent.

        Raises:
            ValueError: The metrics are those of a batch of runs.

        >>> measured = retrieval_metrics(torch.eye(20), torch.arange(20))
        >>> measured.as_dict()["t2i R@5"], measured.as_dict()["rSum"]
        (100.0, 600.0)
        """
        if self.rsum.ndim:
            raise ValueError(f"these metrics are of {tuple(self.rsum.shape)} runs; choose one run")
        named: dict[str, float] = {}
        for name, direction in (("i2t", self.i2t), ("t2i", self.t2i)):
            named |= {f"{name} R@{k}": float(value) for k, value in direction.recall.items()}
            named[f"{name} median rank"] = float(direction.median_rank)
        return {**named, "rSum": float(self.rsum)}


def retrieval_metrics(
    similarity: Values,
    caption_owner: Values,
    ks: Sequence[int] = (1, 5, 10),
    *,
    per_query: bool = False,
) -> RetrievalMetrics:
    """Return retrieval metrics of a similarity matrix; ties count as their expectation.

    Scores are compared as given. Products of equal embeddings can differ in the last bit;
    :func:`lib.metrics.retrieval_metrics_from_embeddings` ties them exactly.

    Args:
        similarity: (..., N, M), of N images and M captions; greater is nearer.
        caption_owner: (M,) integers; the image row of each caption, in any order. An image may
            have any number of captions, or none.
        ks: Cut-offs; a cut-off beyond the gallery is allowed, and marked as trivial.
        per_query: Whether to keep the metrics of each query.

    Returns:
        Recalls in percent and median ranks of both directions, (...) each.

    Raises:
        MetricsError: A number is not finite, or shapes or devices do not match.

    Source:
        McSherry and Najork (2008), for ties; Hodosh et al. (2013), for the protocol.

    >>> similarity = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.8, 0.7]])
    >>> measured = retrieval_metrics(similarity, [0, 0, 1], ks=(1, 5))
    >>> f"{measured.i2t.recall[1]:.1f} {measured.t2i.recall[1]:.1f}"
    '50.0 66.7'
    >>> measured.trivial
    (('i2t', 5), ('t2i', 5))
    """
    cutoffs = as_ks(ks)
    return _summarise(*ranks(similarity, caption_owner), cutoffs, per_query)


def retrieval_metrics_from_embeddings(
    image: Values,
    text: Values,
    caption_owner: Values,
    ks: Sequence[int] = (1, 5, 10),
    *,
    chunk_size: int | None = None,
    per_query: bool = False,
) -> RetrievalMetrics:
    """Return retrieval metrics by inner products of embeddings, in bounded memory.

    Equal embeddings tie exactly, and the numbers depend neither on ``chunk_size`` nor on the
    machine: coordinates are rounded to a grid of 26 bits on which every float64 sum of products is
    exact, in any order.

    Args:
        image: (..., N, d); of unit length for cosine similarities.
        text: (..., M, d), with the same batch axes.
        caption_owner: (M,) integers; the image row of each caption.
        ks: Cut-offs.
        chunk_size: Images per block of the similarity matrix; it affects only speed and memory.
        per_query: Whether to keep the metrics of each query.

    Returns:
        Recalls in percent and median ranks of both directions, (...) each.

    Raises:
        MetricsError: A coordinate is not finite, or shapes or devices do not match.

    Source:
        McSherry and Najork (2008), for ties; Hodosh et al. (2013), for the protocol.

    >>> same = torch.ones(10, 4) / 2
    >>> measured = retrieval_metrics_from_embeddings(same, same, torch.arange(10))
    >>> [round(float(recall), 6) for recall in measured.recalls]
    [10.0, 50.0, 100.0, 10.0, 50.0, 100.0]
    """
    cutoffs = as_ks(ks)
    both = ranks_from_embeddings(image, text, caption_owner, chunk_size=chunk_size)
    return _summarise(*both, cutoffs, per_query)


def _summarise(i2t: Ranks, t2i: Ranks, ks: tuple[int, ...], per_query: bool) -> RetrievalMetrics:
    return RetrievalMetrics(
        i2t=DirectionMetrics.of(i2t, ks, per_query=per_query),
        t2i=DirectionMetrics.of(t2i, ks, per_query=per_query),
        images_without_captions=t2i.gallery - len(i2t.image),
    )


def _median(values: Tensor) -> Tensor:
    """Return the median over the last axis; for an even number, the mean of the middle two."""
    ordered = values.sort(dim=-1).values
    count = values.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
