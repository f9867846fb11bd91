"""Recall, ranks and geometry: worked values, enumerated ties, other implementations."""

import itertools
import math
import re
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics import (
    MetricsError,
    alignment,
    collapsed,
    modality_gap,
    ranks,
    ranks_from_embeddings,
    relative_alignment,
    retrieval_metrics,
    retrieval_metrics_from_embeddings,
    spread,
    uniformity,
)
from lib.metrics.checks import as_ks, as_owner, as_scores

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
    queries, columns = sorted(set(owner)), list(zip(*similarity, strict=True))
    assert i2t.image.tolist() == queries
    assert t2i.image.tolist() == owner
    captions_of = [{j for j, o in enumerate(owner) if o == i} for i in queries]
    for measured, galleries_of in (
        (i2t, [(similarity[i], own) for i, own in zip(queries, captions_of, strict=True)]),
        (t2i, [(columns[j], {o}) for j, o in enumerate(owner)]),
    ):
        for k in KS:
            expected = [enumerate_ties(*gallery, k) for gallery in galleries_of]
            hits, first = zip(*expected, strict=True)
            assert measured.hit_probability(k).tolist() == pytest.approx(hits)
            assert measured.expected().tolist() == pytest.approx(first)


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


def test_directions_exchange_under_transposition():
    """With one caption per image, images and captions play the same part."""
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


def test_queries_one_by_one_average_to_the_recall_and_are_kept_only_if_asked_for():
    similarity, owner = tie_free()
    measured = retrieval_metrics(similarity, owner, per_query=True)
    for direction in (measured.i2t, measured.t2i):
        assert len(direction.per_query.image) == direction.queries
        for k, hits in direction.per_query.hit_probability.items():
            assert float(100 * hits.mean()) == pytest.approx(float(direction.recall[k]))
    assert measured.t2i.per_query.image.tolist() == owner.tolist()
    assert retrieval_metrics(similarity, owner).i2t.per_query is None
    image = torch.eye(4)
    assert retrieval_metrics_from_embeddings(image, image, range(4)).i2t.per_query is None
    assert type(measured.i2t).of(ranks(image, range(4))[0], (1,)).per_query is None


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
    ("owner", "said"),
    [
        ([0, 1], "must name one image for each of the 3 captions, but its shape is (2,)"),
        ([[0, 1, 1]], "must name one image for each of the 3 captions, but its shape is (1, 3)"),
        ([1, 2, 9], "[1] is 2, but there are 2 images, 0 to 1"),
        ([0, -1, 9], "[1] is -1, but there are 2 images, 0 to 1"),
        ([0.0, 1.0, 1.0], "must hold integers, image rows, but it is torch.float32"),
        ([True, False, True], "must hold integers, image rows, but it is torch.bool"),
        (torch.ones(3).cfloat(), "must hold integers, image rows, but it is torch.complex64"),
    ],
)
def test_a_wrong_caption_owner_is_named(owner, said):
    said = f"^caption_owner ?{re.escape(said)}$"
    with pytest.raises(MetricsError, match=said):
        as_owner(owner, 2, 3, torch.device("cpu"))
    with pytest.raises(MetricsError, match=said):
        retrieval_metrics(torch.zeros(2, 3), owner)
    with pytest.raises(MetricsError, match=said):
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


@pytest.mark.parametrize(
    ("ks", "said"),
    [
        *[(ks, "distinct") for ks in ((), (0,), (1, 1), (1.5,), (True,), "15")],
        ([3, 3], r"distinct whole numbers from 1 on, not \[3, 3\]$"),
        (5, r"a list of cut-offs such as \(1, 5, 10\), not 5$"),
    ],
)
def test_wrong_cut_offs_are_refused(ks, said):
    for refuse in (as_ks, lambda ks: retrieval_metrics(torch.zeros(2, 2), [0, 1], ks=ks)):
        with pytest.raises(MetricsError, match=f"^ks must be {said}"):
            refuse(ks)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [((3,), (3, 3), "two axes"), ((2, 3), (3, 4), "agree"), ((2, 3, 3), (3, 3), "agree")],
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


def slow_distances(one, other):
    return [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in other] for x in one]


def slow_spread(x, _):
    middle = [sum(column) / len(x) for column in zip(*x, strict=True)]
    return 1 - sum(m * m for m in middle) / (sum(v * v for row in x for v in row) / len(x))


def slow_gap(x, y):
    middles = ([sum(column) / len(side) for column in zip(*side, strict=True)] for side in (x, y))
    return math.dist(*middles)


def slow_alignment(x, y):
    distances = slow_distances(x, y)
    return sum(distances[row][row] for row in range(len(x))) / len(x)


def slow_relative_alignment(x, y):
    distances = slow_distances(x, y)
    return slow_alignment(x, y) / (sum(map(sum, distances)) / len(x) ** 2)


def slow_uniformity(x, _):
    distances, pairs = slow_distances(x, x), list(itertools.combinations(range(len(x)), 2))
    return math.log(sum(math.exp(-2 * distances[a][b]) for a, b in pairs) / len(pairs))


GEOMETRY = {
    spread: slow_spread,
    modality_gap: slow_gap,
    alignment: slow_alignment,
    relative_alignment: slow_relative_alignment,
    uniformity: slow_uniformity,
}
ONE_SIDED = (spread, uniformity)


@pytest.mark.parametrize("measure", GEOMETRY)
@pytest.mark.parametrize("leading", [(), (4,), (2, 4)])
def test_geometry_equals_slow_loops_for_each_run(measure, leading):
    generator = torch.Generator().manual_seed(len(leading))
    image, text = 0.5 * torch.randn(2, *leading, 5, 3, generator=generator, dtype=torch.float64)
    image = image + 0.3
    sides = (image,) if measure in ONE_SIDED else (image, text)
    found = measure(*sides)
    assert found.shape == leading
    for place in itertools.product(*map(range, leading)):
        expected = GEOMETRY[measure](image[place].tolist(), text[place].tolist())
        assert float(found[place]) == pytest.approx(expected)


@pytest.mark.parametrize("measure", GEOMETRY)
@pytest.mark.parametrize("side", [0, 1])
def test_geometry_names_the_side_that_is_not_finite(measure, side):
    sides = [torch.ones(3, 2), torch.ones(3, 2)]
    sides[side][2, 1] = (torch.inf, torch.nan)[side]
    one_sided = measure in ONE_SIDED
    named = "embeddings" if one_sided else ("image", "text")[side]
    with pytest.raises(MetricsError, match=f"^{named} holds "):
        measure(*(sides[side : side + 1] if one_sided else sides))


def test_the_uniformity_of_two_is_that_of_their_distance_and_one_has_none():
    assert float(uniformity([[1.0, 0.0], [0.0, 1.0]], t=0.5)) == pytest.approx(-1)
    assert float(uniformity([[0.3, 0.1], [0.3, 0.1]])) == pytest.approx(0)
    with pytest.raises(ValueError, match=r"^embeddings must be two or more for uniformity"):
        uniformity([[1.0, 0.0]])


def test_the_relative_alignment_of_nearly_equal_embeddings_keeps_its_digits():
    """A difference of squares still has a few digits at a millionth of the squares."""
    draws = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image, text = 1 + 1e-4 * draws
    expected = slow_relative_alignment(image.tolist(), text.tolist())
    assert float(relative_alignment(image, text)) == pytest.approx(expected, rel=1e-4)
    assert float(relative_alignment(1 + 1e-9 * draws[0], 1 + 1e-9 * draws[1])) == 1


@pytest.mark.parametrize("t", [0, -1.0, math.nan, math.inf])
def test_a_kernel_without_a_width_is_refused(t):
    with pytest.raises(MetricsError, match=f"^t must be positive and finite, not {t}$"):
        uniformity(torch.eye(3), t)


def test_pairs_of_other_numbers_are_refused():
    for measure in (alignment, relative_alignment):
        with pytest.raises(MetricsError):
            measure(torch.eye(3), torch.eye(3)[:2])
    assert float(modality_gap(torch.eye(2), [[0.5, 0.5]])) == 0


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1, 12345.678, 7e-4])
@pytest.mark.parametrize("count", [3, 7, 11])
def test_pairs_of_a_collapsed_model_are_no_closer_than_any(value, count):
    """However rounding leaves the mean of equal numbers."""
    one = torch.full((count, 3), value, dtype=torch.float64)
    assert float(relative_alignment(one, one)) == 1


@pytest.mark.parametrize(("noise", "flag"), [(0.001, True), (0.03, True), (0.5, False)])
def test_collapse_is_flagged_by_degree(noise, flag):
    generator = torch.Generator().manual_seed(0)
    direction, step = torch.randn(16, generator=generator), torch.randn(99, 16, generator=generator)
    cone = torch.nn.functional.normalize(direction + noise * step, dim=-1)
    assert collapsed(cone) is flag
    assert collapsed(1e-30 * cone) is flag


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.ones(2, 2).cfloat(), "x holds complex numbers; scores must be real"),
        (torch.ones(3), "x must have two axes or more, but its shape is (3,)"),
        (torch.ones(2, 0, 3), "x is empty: its shape is (2, 0, 3)"),
        (
            [[0.0, math.nan], [math.inf, 1.0]],
            "x holds 2 numbers that are not finite, the first, nan, at [0, 1]; a diverged model "
            "can't be ranked",
        ),
    ],
)
def test_values_that_are_no_scores_are_refused_in_words(values, said):
    with pytest.raises(MetricsError, match=f"^{re.escape(said)}$"):
        as_scores("x", values)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_whole_scores_become_double(kind):
    found = as_scores("x", torch.ones(2, 2, dtype=kind))
    assert found.dtype == torch.float64
    assert found.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_keep_their_type_and_leave_the_graph(kind):
    given = torch.ones(2, 2, dtype=kind, requires_grad=True)
    found = as_scores("x", given)
    assert found.dtype == kind
    assert not found.requires_grad


def test_owners_become_int64():
    found = as_owner(np.array([1, 0], dtype=np.uint8), 2, 2, torch.device("cpu"))
    assert found.dtype == torch.int64
    assert found.tolist() == [1, 0]


def test_cut_offs_are_kept_in_their_order():
    assert as_ks((5, 1, np.int64(3))) == (5, 1, 3)
    assert {type(k) for k in as_ks(torch.tensor([2, 1]).numpy())} == {int}


def test_the_numbers_of_a_run_by_name():
    measured = retrieval_metrics([[0.9, 0.8, 0.1], [0.7, 0.2, 0.6]], [0, 1, 1], ks=(1, 2))
    # i2t: A's caption is first; B's best, 0.6, is second. t2i: A's first; B's second, then first.
    assert measured.as_dict() == {
        "i2t R@1": 50.0, "i2t R@2": 100.0, "i2t median rank": 1.5,
        "t2i R@1": pytest.approx(200 / 3), "t2i R@2": 100.0, "t2i median rank": 1.0,
        "rSum": pytest.approx(250 + 200 / 3),
    }  # fmt: skip
    assert (measured.i2t.queries, measured.i2t.gallery) == (2, 3)
    assert (measured.t2i.queries, measured.t2i.gallery) == (3, 2)
    several = retrieval_metrics(torch.rand(2, 3, 4, 4), torch.arange(4), ks=(1,))
    with pytest.raises(ValueError, match=r"these metrics are of \(2, 3\) runs; choose one run"):
        several.as_dict()


def test_spread_has_no_scale():
    draws = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = spread(draws)
    runs = draws * torch.tensor([1e-200, 1e200], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(spread(runs), expected)


def test_the_median_of_an_odd_number_of_queries_is_the_middle_one():
    # The pairs' own scores come first, second and third in their rows.
    similarity = torch.tensor([[9.0, 1, 2], [5, 4, 3], [3, 2, 1]])
    assert float(retrieval_metrics(similarity, [0, 1, 2]).i2t.median_rank) == 2


def test_a_tie_that_only_positives_share_is_a_hit():
    # Two captions of one image tie for the first place: whichever comes first is a hit.
    found = ranks(torch.tensor([[0.5, 0.5, 0.1]]), [0, 0, 0])[0]
    assert found.hit_probability(2).tolist() == [1.0]
    assert ranks(torch.tensor([[0.5, 0.4]]), [0, 0])[0].hit_probability(1).tolist() == [1.0]
