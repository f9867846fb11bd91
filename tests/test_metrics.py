"""Recall, ranks and geometry: worked values, enumerated ties, other implementations."""

import itertools
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate

from lib.metrics import (
    MetricsError,
    alignment,
    collapsed,
    modality_gap,
    ranks,
    ranks_from_embeddings,
    retrieval_metrics,
    retrieval_metrics_from_embeddings,
    spread,
    uniformity,
)

KS = (1, 2, 3, 5)


def enumerate_ties(scores, positive, k):
    """Probability of a hit in the top k and expected first rank, over every gallery order."""
    hits, first, orders = 0, 0, 0
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda item: -scores[item])
        rank = min(position for position, item in enumerate(ranked, 1) if item in positive)
        hits, first, orders = hits + (rank <= k), first + rank, orders + 1
    return hits / orders, first / orders


@st.composite
def galleries(draw):
    """A small matrix full of ties, with ragged captions in any order."""
    images = draw(st.integers(1, 5))
    captions = draw(st.integers(1, 5))
    owner = draw(st.lists(st.integers(0, images - 1), min_size=captions, max_size=captions))
    row = st.lists(st.integers(0, 2), min_size=captions, max_size=captions)
    return draw(st.lists(row, min_size=images, max_size=images)), owner


@given(galleries())
@settings(max_examples=60, deadline=None)
def test_equals_the_mean_over_every_way_to_break_the_ties(gallery):
    similarity, owner = gallery
    i2t, t2i = ranks(np.array(similarity), np.array(owner))
    queries = sorted(set(owner))
    assert i2t.image.tolist() == queries
    assert t2i.image.tolist() == owner
    for k in KS:
        expected = [
            enumerate_ties(similarity[i], {j for j, o in enumerate(owner) if o == i}, k)
            for i in queries
        ]
        hits, first = zip(*expected, strict=True)
        assert i2t.hit_probability(k).tolist() == pytest.approx(hits)
        assert i2t.expected().tolist() == pytest.approx(first)
        columns = list(zip(*similarity, strict=True))
        expected = [enumerate_ties(columns[j], {o}, k) for j, o in enumerate(owner)]
        hits, first = zip(*expected, strict=True)
        assert t2i.hit_probability(k).tolist() == pytest.approx(hits)
        assert t2i.expected().tolist() == pytest.approx(first)


@given(galleries(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_embeddings_agree_with_their_exact_matrix(gallery, seed):
    """Small whole coordinates have exact products in float32: both paths must agree, ties too."""
    _, owner = gallery
    draw = np.random.default_rng(seed)
    image = draw.integers(-2, 3, (len(gallery[0]), 3)).astype(np.float32)
    text = draw.integers(-2, 3, (len(owner), 3)).astype(np.float32)
    expected = ranks(image @ text.T, owner)
    found = ranks_from_embeddings(image, text, owner)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.above.tolist() == theirs.above.tolist()
        assert ours.tied.tolist() == theirs.tied.tolist()
        assert ours.tied_positives.tolist() == theirs.tied_positives.tolist()


def tie_free(images=40, seed=0, ragged=True):
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), draw.integers(1, 5, images) if ragged else 1)
    draw.shuffle(owner)
    similarity = draw.permutation(images * len(owner)).reshape(images, -1) / (images * len(owner))
    similarity[owner, np.arange(len(owner))] += 0.3
    return similarity, owner


def test_equals_a_sort_where_nothing_ties():
    similarity, owner = tie_free()
    measured = retrieval_metrics(similarity, owner, ks=(1, 5, 10))
    i2t = [
        1 + min(np.flatnonzero(owner[np.argsort(-row)] == image))
        for image, row in enumerate(similarity)
    ]
    t2i = [1 + list(np.argsort(-column)).index(owner[j]) for j, column in enumerate(similarity.T)]
    for direction, expected in ((measured.i2t, i2t), (measured.t2i, t2i)):
        for k in (1, 5, 10):
            share = 100 * sum(rank <= k for rank in expected) / len(expected)
            assert float(direction.recall[k]) == pytest.approx(share)
        assert float(direction.median_rank) == median(expected)
    assert float(measured.rsum) == pytest.approx(sum(float(r) for r in measured.recalls))
    assert 100 < float(measured.rsum) < 500


@pytest.mark.parametrize("k", [1, 5, 10])
def test_equals_torchmetrics_where_nothing_ties(k):
    similarity, owner = tie_free(seed=1)
    target = torch.tensor(owner)[None, :] == torch.arange(len(similarity))[:, None]
    scores = torch.tensor(similarity)
    measured = retrieval_metrics(scores, owner, ks=(k,))
    for direction, s, relevant in (
        (measured.i2t, scores, target),
        (measured.t2i, scores.T, target.T),
    ):
        query = torch.arange(len(s))[:, None].expand_as(s)
        oracle = RetrievalHitRate(top_k=k)
        hit = oracle(s.flatten().float(), relevant.flatten(), indexes=query.flatten())
        assert float(direction.recall[k]) == pytest.approx(100 * float(hit))


def test_directions_exchange_under_transposition():
    """With one caption an image, images and captions play the same part."""
    similarity, _ = tie_free(30, seed=2, ragged=False)
    similarity = np.round(similarity, 1)
    owner = np.arange(30)
    one, other = retrieval_metrics(similarity, owner), retrieval_metrics(similarity.T, owner)
    assert one.i2t.recall == other.t2i.recall
    assert one.t2i.recall == other.i2t.recall
    assert one.i2t.recall != one.t2i.recall
    assert one.median_ranks == other.median_ranks[::-1]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_order_never_matters(seed):
    similarity, owner = tie_free(12, seed=seed % 7)
    similarity = np.round(similarity, 1)
    draw = np.random.default_rng(seed)
    image, caption = draw.permutation(12), draw.permutation(len(owner))
    place = np.argsort(image)
    shuffled = retrieval_metrics(similarity[image][:, caption], place[owner[caption]])
    plain = retrieval_metrics(similarity, owner)
    assert shuffled.as_dict() == pytest.approx(plain.as_dict())


def test_batch_axes_give_each_run_its_own_numbers():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 20, 8, generator=generator)
    text = torch.randn(2, 3, 50, 8, generator=generator)
    owner = torch.arange(50) % 20
    together = retrieval_metrics_from_embeddings(image, text, owner, per_query=True)
    stacked = retrieval_metrics(image @ text.mT, owner)
    assert together.rsum.shape == (2, 3)
    assert together.t2i.per_query.hit_probability[5].shape == (2, 3, 50)
    for run in itertools.product(range(2), range(3)):
        alone = retrieval_metrics_from_embeddings(image[run], text[run], owner).as_dict()
        matrix = retrieval_metrics(image[run] @ text[run].mT, owner).as_dict()
        assert alone == matrix
        assert alone["rSum"] == float(together.rsum[run]) == float(stacked.rsum[run])
        assert alone["t2i median rank"] == float(together.t2i.median_rank[run])
    assert len(set(together.rsum.flatten().tolist())) > 1


def test_queries_one_by_one_average_to_the_recall():
    similarity, owner = tie_free()
    measured = retrieval_metrics(similarity, owner, per_query=True)
    for direction in (measured.i2t, measured.t2i):
        assert len(direction.per_query.image) == direction.queries
        for k, hits in direction.per_query.hit_probability.items():
            assert float(100 * hits.mean()) == pytest.approx(float(direction.recall[k]))
    assert measured.t2i.per_query.image.tolist() == owner.tolist()
    assert retrieval_metrics(similarity, owner).i2t.per_query is None


def test_probability_stays_exact_in_a_huge_tied_group():
    """C(100000, 5000) overflows every float; the probability is 5000 / 100000."""
    scores, owner = torch.zeros(1, 100_000), torch.zeros(100_000, dtype=torch.long)
    owner[1:] = 1
    i2t, _ = ranks(torch.cat([scores, scores]), owner)
    assert i2t.hit_probability(5000)[0].item() == pytest.approx(0.05, rel=1e-12)
    assert i2t.expected()[0].item() == 50_000.5
    assert i2t.hit_probability(5000)[1].item() == 1.0


def test_half_precision_scores_are_compared_as_they_are():
    similarity = torch.tensor([[1.0, 1.001], [0.5, 1.0]])  # bfloat16 makes the first row tie.
    assert float(retrieval_metrics(similarity, [0, 1], ks=(1,)).i2t.recall[1]) == 50
    assert float(retrieval_metrics(similarity.bfloat16(), [0, 1], ks=(1,)).i2t.recall[1]) == 75


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ([0, 1], "one image for each of the 3 captions"),
        ([0, 1, 2], r"caption_owner\[2\] is 2, but there are 2 images"),
        ([0, -1, 1], r"caption_owner\[1\] is -1"),
        ([0.0, 1.0, 1.0], "must hold integers"),
        ([True, False, True], "must hold integers"),
        ([[0, 1, 1]], r"shape is \(1, 3\)"),
    ],
)
def test_a_wrong_caption_owner_is_named(owner, message):
    with pytest.raises(MetricsError, match=message):
        retrieval_metrics(torch.zeros(2, 3), owner)
    with pytest.raises(MetricsError, match=message):
        retrieval_metrics_from_embeddings(torch.zeros(2, 4), torch.zeros(3, 4), owner)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_located(value):
    similarity = torch.zeros(2, 3)
    similarity[1, 2] = value
    with pytest.raises(MetricsError, match=rf"similarity .* {value}, at \[1, 2\]"):
        retrieval_metrics(similarity, [0, 1, 1])
    with pytest.raises(MetricsError, match=rf"text .* {value}, at \[1, 2\]"):
        retrieval_metrics_from_embeddings(torch.zeros(1, 3), similarity, [0, 0])
    with pytest.raises(MetricsError, match=rf"embeddings .* {value}"):
        collapsed(similarity)


def test_a_sum_that_overflows_is_not_taken_for_an_infinity():
    similarity = torch.full((2, 2), 3e38)
    assert float(retrieval_metrics(similarity, [0, 1], ks=(1,)).i2t.recall[1]) == 50


@pytest.mark.parametrize("ks", [(), (0,), (1, 1), (1.5,), (True,), 5, "15"])
def test_wrong_cut_offs_are_refused(ks):
    with pytest.raises(MetricsError, match="ks must be"):
        retrieval_metrics(torch.zeros(2, 2), [0, 1], ks=ks)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        ((3,), (3, 3), "two axes or more"),
        ((0, 3), (3, 3), "empty"),
        ((2, 3), (3, 4), "must agree"),
        ((2, 3, 3), (3, 3), "must agree"),
    ],
)
def test_wrong_shapes_are_refused(image, text, message):
    with pytest.raises(MetricsError, match=message):
        retrieval_metrics_from_embeddings(torch.zeros(image), torch.zeros(text), [0, 1, 1])


def test_geometry_of_worked_cases():
    assert float(spread([[3.0, 4.0], [3.0, 4.0]])) == 0
    assert float(spread([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5)
    assert float(spread([[0.0, 0.0], [0.0, 0.0]])) == 0
    assert float(modality_gap([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]])) == 0
    assert float(alignment([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]])) == 2
    # Three pairs at squared distances 2, 2 and 4.
    expected = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)
    assert float(uniformity([[1.0, 0], [0, 1.0], [-1.0, 0]])) == pytest.approx(expected)


def test_spread_is_one_minus_the_mean_cosine():
    x = torch.nn.functional.normalize(torch.randn(50, 6) + 1, dim=-1).double()
    assert float(spread(x)) == pytest.approx(float(1 - (x @ x.T).mean()))


@pytest.mark.parametrize(("noise", "flag"), [(0.001, True), (0.03, True), (0.5, False)])
def test_collapse_is_flagged_by_degree(noise, flag):
    generator = torch.Generator().manual_seed(0)
    direction, step = torch.randn(16, generator=generator), torch.randn(99, 16, generator=generator)
    cone = torch.nn.functional.normalize(direction + noise * step, dim=-1)
    assert collapsed(cone) is flag
    assert collapsed(1e-30 * cone) is flag
