"""The rank of each query's first positive: counted, not sorted, and exact under ties.

From a similarity matrix, the counts are exact for the given numbers. From embeddings they are
exact: equal embeddings tie, whatever the hardware, the library, the number of threads and the
blocks of the product. The last bits of a float32 product depend on all of these. So embeddings are
first rounded to a grid of 26 bits, fine enough for float32's precision and coarse enough that every
float64 sum of products is exact in any order (:func:`_on_grid`). A float32 product then decides
the comparisons whose difference exceeds its error bound; exact scores decide the others.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import MetricsError, Values, as_owner, as_pair, as_scores
from .parallel import in_parts

GRID_BITS = 26
"""Bits of an embedding's coordinates: twice 26, and a carry, fit the 53 bits of a float64."""
BLOCK = 1 << 23
"""Scores in memory at once: 32 MB in float32."""
BLOCK_ROWS = 1024
STRIP = 1 << 19
"""Scores counted at once on a CPU: they fit in the cache."""
EXACT_SHARE = 1 / 64
"""Share of doubtful comparisons in a block above which an exact product is faster."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """The rank in the gallery of the best positive of each of Q queries of one direction.

    Args:
        above: (..., Q) int64; number of negatives that score more than the best positive.
        tied: (..., Q) int64; number of items with the best positive's score, positives included.
        tied_positives: (..., Q) int64; number of positives among the tied items.
        positives: (Q,) int64; number of positives of the query in the gallery.
        image: (Q,) int64; the image that the query is, or belongs to.
        gallery: Number of ranked items.

    Source:
        McSherry and Najork (2008).

    >>> i2t, t2i = ranks(torch.tensor([[0.9, 0.9], [0.1, 0.5]]), [0, 1])
    >>> i2t.above, i2t.tied
    (tensor([0, 0]), tensor([2, 1]))
    >>> i2t.hit_probability(1)
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    above: Tensor
    tied: Tensor
    tied_positives: Tensor
    positives: Tensor
    image: Tensor
    gallery: int

    def hit_probability(self, k: int) -> Tensor:
        r"""Return the probability of a positive among the first ``k``, ties broken at random.

        With m = min(k − above, tied) places left for a tied group of t items, of which p are
        positives, it is 0 if m ≤ 0, else

        .. math::

           1 - \frac{\binom{t - p}{m}}{\binom{t}{m}}
           = 1 - \prod_{x < a} \frac{t - b - x}{t - x} ,

        with a the lesser and b the greater of m and p: few factors, all in [0, 1].

        Args:
            k: Number of places, from 1.

        Returns:
            (..., Q) float64 in [0, 1].

        >>> tied = ranks(torch.zeros(4, 4), torch.arange(4))[0]
        >>> tied.hit_probability(1)
        tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
        """
        places = torch.minimum((k - self.above).clamp(min=0), self.tied)
        lesser = torch.minimum(places, self.tied_positives)
        greater = torch.maximum(places, self.tied_positives)
        miss = torch.ones_like(places, dtype=torch.float64)
        for x in range(int(lesser.max())):
            factor = (self.tied - greater - x).clamp(min=0) / (self.tied - x).clamp(min=1).double()
            miss *= torch.where(x < lesser, factor, 1.0)
        return 1 - miss

    def expected(self) -> Tensor:
        """Return the expected rank of the first positive, ties broken at random.

        Returns:
            (..., Q) float64, from 1: above + (tied + 1) / (tied positives + 1).

        >>> ranks(torch.tensor([[0.9, 0.5, 0.5]]), [0, 0, 0])[0].expected()
        tensor([1.], dtype=torch.float64)
        """
        return self.above + (self.tied + 1).double() / (self.tied_positives + 1)


def ranks(similarity: Values, caption_owner: Values) -> tuple[Ranks, Ranks]:
    """Rank the positives of every query in both directions of a similarity matrix.

    Scores are compared as given. Products of equal embeddings can differ in the last bit: if ties
    matter, use :func:`lib.metrics.ranks_from_embeddings`.

    Args:
        similarity: (..., N, M), of N images and M captions; greater is nearer.
        caption_owner: (M,) integers; the image row of each caption.

    Returns:
        ``i2t``, whose queries are the images with captions, in order, and ``t2i``, whose queries
        are the captions. An image without captions is still in the gallery of ``t2i``.

    Raises:
        MetricsError: A number is not finite, or shapes or devices do not match.

    Source:
        McSherry and Najork (2008), for ties.

    >>> similarity = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.8, 0.7]])
    >>> i2t, t2i = ranks(similarity, [0, 0, 1])
    >>> i2t.above, t2i.above
    (tensor([0, 1]), tensor([1, 0, 0]))
    """
    scores = as_scores("similarity", similarity)
    batch, (images, captions) = scores.shape[:-2], scores.shape[-2:]
    owner = as_owner(caption_owner, images, captions, scores.device)
    column = torch.arange(captions, device=scores.device)
    tallies = []
    for matrix in scores.reshape(-1, images, captions):
        tally = _Tally(matrix[owner, column], owner, images)
        in_parts(
            partial(_count_block, matrix, tally.best, tally.matched),
            _blocks(images, captions, BLOCK_ROWS),
            tally.add,
            scores.device,
        )
        # The counts of tied items still include the positives.
        tally.tied[0] -= tally.tied_positives
        tally.tied[1] -= 1
        tallies.append(tally)
    return _assemble(tallies, batch, owner, images)


@torch.no_grad()
def ranks_from_embeddings(
    image: Values, text: Values, caption_owner: Values, *, chunk_size: int | None = None
) -> tuple[Ranks, Ranks]:
    """Rank the positives of every query by inner products, in bounded memory, exactly.

    Equal embeddings tie, and the result depends neither on ``chunk_size`` nor on the machine.

    Args:
        image: (..., N, d); of unit length for cosine similarities.
        text: (..., M, d), with the same batch axes.
        caption_owner: (M,) integers; the image row of each caption.
        chunk_size: Images per block of the similarity matrix; a block has at most 2²³ scores,
            32 MB.

    Returns:
        ``i2t`` and ``t2i``, as :func:`lib.metrics.ranks`.

    Raises:
        MetricsError: A coordinate is not finite, or shapes or devices do not match.

    >>> same = torch.ones(3, 2)
    >>> ranks_from_embeddings(same, same, [0, 1, 2])[1].expected()
    tensor([2., 2., 2.], dtype=torch.float64)
    """
    image, text = as_pair(image, text)
    if chunk_size is not None and chunk_size < 1:
        raise MetricsError(f"chunk_size must be 1 or more, not {chunk_size}")
    batch, images, captions = image.shape[:-2], image.shape[-2], text.shape[-2]
    owner = as_owner(caption_owner, images, captions, image.device)
    tallies = [
        _tally_embeddings(_on_grid(v), _on_grid(t), owner, chunk_size or BLOCK_ROWS)
        for v, t in zip(
            image.reshape(-1, *image.shape[-2:]), text.reshape(-1, *text.shape[-2:]), strict=True
        )
    ]
    return _assemble(tallies, batch, owner, images)


class _Tally:
    """Counts over the blocks of one similarity matrix: one list entry per direction."""

    def __init__(self, matched: Tensor, owner: Tensor, images: int) -> None:
        """Start from ``matched`` (M,), the score of each caption with its image."""
        self.matched = matched
        # An image without captions is not a query; _assemble drops its counts.
        self.best = matched.new_full((images,), -torch.inf)
        self.best.scatter_reduce_(0, owner, matched, "amax")
        leading = (matched == self.best[owner]).long()
        self.tied_positives = leading.new_zeros(images).index_add_(0, owner, leading)
        self.above = [leading.new_zeros(images), torch.zeros_like(leading)]
        self.tied = [leading.new_zeros(images), torch.zeros_like(leading)]

    def part(self, rows: slice, columns: slice) -> "_Tally":
        """Return the tally of a block of the matrix; its counts are views of this tally's."""
        part = copy.copy(self)
        part.best, part.matched = self.best[rows], self.matched[columns]
        part.tied_positives = self.tied_positives[rows]
        part.above = [self.above[0][rows], self.above[1][columns]]
        part.tied = [self.tied[0][rows], self.tied[1][columns]]
        return part

    def add(self, counted: "_Counted") -> None:
        for direction, part in enumerate((counted.rows, counted.columns)):
            above, reached = counted.above[direction], counted.reached[direction]
            self.above[direction][part] += above
            self.tied[direction][part] += reached - above
        for direction, (query, above, tied) in enumerate(counted.decided):
            self.above[direction].index_add_(0, query, above)
            self.tied[direction].index_add_(0, query, tied)


def _assemble(
    tallies: list[_Tally], batch: torch.Size, owner: Tensor, images: int
) -> tuple[Ranks, Ranks]:
    """Stack the tallies of the runs, and drop images that are not queries."""
    positives = torch.bincount(owner, minlength=images)
    query = positives.nonzero().flatten()

    def stack(values: list[Tensor]) -> Tensor:
        return torch.stack(values).reshape(*batch, -1)

    led = stack([t.tied_positives for t in tallies])[..., query]
    i2t = Ranks(
        above=stack([t.above[0] for t in tallies])[..., query],
        tied=stack([t.tied[0] for t in tallies])[..., query] + led,
        tied_positives=led,
        positives=positives[query],
        image=query,
        gallery=len(owner),
    )
    tied = stack([t.tied[1] for t in tallies]) + 1
    t2i = Ranks(
        above=stack([t.above[1] for t in tallies]),
        tied=tied,
        tied_positives=torch.ones_like(tied),
        positives=torch.ones_like(owner),
        image=owner,
        gallery=images,
    )
    return i2t, t2i


def _blocks(images: int, captions: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield the blocks of an images × captions matrix, of at most BLOCK scores each."""
    rows = min(rows, images, BLOCK)
    columns = BLOCK // rows
    for top in range(0, images, rows):
        for left in range(0, captions, columns):
            right = min(left + columns, captions)
            yield slice(top, min(top + rows, images)), slice(left, right)


def _count_block(
    matrix: Tensor, best: Tensor, matched: Tensor, block: tuple[slice, slice]
) -> "_Counted":
    rows, columns = block
    exact = best[rows], matched[columns]
    return _Counted(rows, columns, *_count(matrix[rows, columns], exact, exact), [])


def _count(
    scores: Tensor, low: tuple[Tensor, Tensor], high: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Count the scores above ``high``, and those of at least ``low``, per row and per column.

    The flags are float32, which torch compares and sums several times faster than booleans; a block
    has fewer than 2²⁴ scores, so that the sums are exact.
    """
    rows, columns = scores.shape
    height = max(1, STRIP // columns) if scores.device.type == "cpu" else rows
    flags = torch.empty(min(height, rows), columns, device=scores.device)
    above = [torch.empty(rows, device=scores.device), torch.zeros(columns, device=scores.device)]
    reached = [torch.empty_like(above[0]), torch.zeros_like(above[1])]
    for top in range(0, rows, height):
        part = slice(top, min(top + height, rows))
        strip, flag = scores[part], flags[: part.stop - top]
        above[0][part] = torch.gt(strip, high[0][part, None], out=flag).sum(dim=1)
        reached[0][part] = torch.ge(strip, low[0][part, None], out=flag).sum(dim=1)
        above[1] += torch.gt(strip, high[1], out=flag).sum(dim=0)
        reached[1] += torch.ge(strip, low[1], out=flag).sum(dim=0)
    return [a.long() for a in above], [r.long() for r in reached]


def _on_grid(embeddings: Tensor, top: int | None = None) -> Tensor:
    """Round embeddings (n, d) so that their inner products are exact in float64, in any order.

    First, the greatest norm is scaled to [½, 1) by a power of two, which changes no order. Each
    vector of norm ≤ 2^e is rounded to multiples of 2^(e − 26). A product of two coordinates is then
    a multiple of 2^(e + f − 52), and by Cauchy and Schwarz no partial sum of products exceeds
    2^(e + f) by more than rounding: it is a whole number of at most 53 bits. A vector whose norm is
    less than 2⁻⁴⁰⁰ of the greatest counts as zero.

    Args:
        embeddings: (n, d), all vectors or some of them.
        top: The exponent of the greatest norm of all vectors; None if ``embeddings`` has them all.
    """
    # The norms of float64 may overflow; those of float32 cannot.
    if embeddings.dtype == torch.float64 and top is None:
        embeddings = embeddings * _power(-math.frexp(float(embeddings.abs().amax()))[1])
    elif embeddings.dtype == torch.float64:
        embeddings = embeddings.clone()  # It is written to below.
    norm = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True, dtype=torch.float64)
    top = math.frexp(float(norm.amax()))[1] if top is None else top
    exponent = (torch.frexp(norm).exponent - top).clamp(min=-400)  # Products stay above underflow.
    # 2^(exponent − 26), written as a float64's bits: torch.ldexp goes through a float32 power.
    step = (exponent.long() - GRID_BITS + 1023 << 52).view(torch.float64)
    return embeddings.double().mul_(_power(-top) / step).round_().mul_(step)


def _power(exponent: int) -> float:
    """Return 2^exponent, with the exponent clamped to float64's range."""
    return math.ldexp(1.0, max(-1000, min(exponent, 1000)))


def _tally_embeddings(image: Tensor, text: Tensor, owner: Tensor, rows_at_once: int) -> _Tally:
    """Count one run, from embeddings on the grid: (N, d) and (M, d) float64."""
    tally = _Tally(
        _exact(image, text, owner, torch.arange(len(owner)).to(owner)), owner, len(image)
    )
    _count_embeddings(tally, image, text, owner, rows_at_once)
    return tally


def _count_embeddings(
    tally: _Tally, image: Tensor, text: Tensor, owner: Tensor, rows_at_once: int
) -> None:
    """Count a block whose best and matched scores are known; ``owner`` is −1 for images outside."""
    exact = tally.best, tally.matched
    # |float32 product − exact| ≤ γ ‖v‖ ‖t‖ for any order of summation, with γ = d u / (1 − d u) and
    # u = 2⁻²⁴ (Higham, 2002, §3.1); + 8 covers the rounding of the factors and the thresholds.
    width = image.shape[1]
    unit = torch.finfo(torch.float32).eps / 2
    gamma = (width + 8) * unit / (1 - (width + 8) * unit)
    norms = [torch.linalg.vector_norm(e, dim=-1) for e in (image, text)]
    # The last term is for coordinates so small that float32 flushes them.
    slack = [gamma * n * o.amax() + 1e-36 for n, o in zip(norms, reversed(norms), strict=True)]
    low = [(best - s).float() for best, s in zip(exact, slack, strict=True)]
    high = [(best + s).float() for best, s in zip(exact, slack, strict=True)]
    image32, text32 = image.float(), text.float()

    def count(block: tuple[slice, slice]) -> _Counted:
        rows, columns = block
        with torch.autocast(image.device.type, enabled=False):
            scores = image32[rows] @ text32[columns].T
        held = owner[columns]
        column = ((held >= rows.start) & (held < rows.stop)).nonzero().flatten()
        positive = held[column] - rows.start, column
        # The user may allow less precise products (TF32, bfloat16): the positives, whose exact
        # scores are known, show whether the bound holds.
        error = (scores[positive] - tally.matched[columns][column]).abs()
        trusted = bool((error <= slack[1][columns][column]).all())
        if trusted:
            scores[positive] = -torch.inf
            near = (low[0][rows], low[1][columns]), (high[0][rows], high[1][columns])
            above, reached = _count(scores, *near)
            doubts = [r - a for r, a in zip(reached, above, strict=True)]
            doubtful = int(doubts[0].sum() + doubts[1].sum())
            if doubtful <= EXACT_SHARE * scores.numel():
                decided = []
                if doubtful:
                    decided = _decide(exact, image, text, rows, columns, scores, doubts, near)
                return _Counted(rows, columns, above, above, decided)
        scores = image[rows] @ text[columns].T
        scores[positive] = -torch.inf
        best = exact[0][rows], exact[1][columns]
        return _Counted(rows, columns, *_count(scores, best, best), [])

    in_parts(count, _blocks(len(image), len(text), rows_at_once), tally.add, image.device)


class _Counted(NamedTuple):
    """The counts of a block, of which ``decided`` holds those by exact scores, per direction: a
    query, and what it adds to the counts above and tied."""

    rows: slice
    columns: slice
    above: list[Tensor]
    reached: list[Tensor]
    decided: list[tuple[Tensor, Tensor, Tensor]]


def _decide(
    exact: tuple[Tensor, Tensor],
    image: Tensor,
    text: Tensor,
    rows: slice,
    columns: slice,
    scores: Tensor,
    doubts: list[Tensor],
    near: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Decide by exact scores the comparisons of a block that float32 scores cannot decide."""
    (low_row, low_column), (high_row, high_column) = near
    open_row = doubts[0].nonzero().flatten()
    part = scores[open_row]
    close = (part >= low_row[open_row, None]) & (part <= high_row[open_row, None])
    a, b = close.nonzero(as_tuple=True)
    pairs = [(open_row[a] + rows.start, b + columns.start)]
    open_column = doubts[1].nonzero().flatten()
    part = scores.index_select(1, open_column)
    close = (part >= low_column[open_column]) & (part <= high_column[open_column])
    a, b = close.nonzero(as_tuple=True)
    pairs.append((a + rows.start, open_column[b] + columns.start))
    decided = []
    for direction, (best, (row, column)) in enumerate(zip(exact, pairs, strict=True)):
        query = (row, column)[direction]
        score = _exact(image, text, row, column)
        decided.append((query, (score > best[query]).long(), (score == best[query]).long()))
    return decided


def _exact(image: Tensor, text: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the inner products of pairs of rows, (P,), for embeddings on the grid."""
    at_once = max(1, (STRIP // 4 if image.device.type == "cpu" else BLOCK) // image.shape[1])
    parts = [slice(start, start + at_once) for start in range(0, len(row), at_once)]
    scores = [image.new_empty(0)]

    def multiply(part: slice) -> Tensor:
        return image[row[part]].mul_(text[column[part]]).sum(dim=-1)

    in_parts(multiply, parts, scores.append, image.device)
    return torch.cat(scores)
