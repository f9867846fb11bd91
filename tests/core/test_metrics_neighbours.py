"""Neighbours: worked values, every way to break a tie, slow loops and SciPy as oracles."""

import itertools
import re

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.metrics import (
    MetricsError,
    hubness,
    k_occurrence,
    nearest,
    neighbour_purity,
    relative_alignment,
    skewness,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def over_every_order(scores, k):
    """Share of the gallery's orders in which an item is among the first k of a stable sort."""
    counts, orders = np.zeros(len(scores)), 0
    for order in itertools.permutations(range(len(scores))):
        first = sorted(order, key=lambda item: -scores[item])[:k]
        counts[first] += 1
        orders += 1
    return counts / orders


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.data())
def test_ties_are_broken_at_random_in_expectation(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    expected = over_every_order(scores, k)
    np.testing.assert_allclose(nearest([scores], k)[0], expected, atol=1e-12)


def test_without_ties_it_is_the_k_greatest():
    similarity = randn(7, 9)
    order = np.argsort(-similarity.numpy(), axis=1)
    expected = np.zeros((7, 9))
    np.put_along_axis(expected, order[:, :4], 1.0, axis=1)
    np.testing.assert_array_equal(nearest(similarity, 4), expected)


def test_a_query_is_no_neighbour_of_itself():
    similarity = [[1.0, 0.6, 0.1], [0.6, 1.0, 0.2], [0.1, 0.2, 1.0]]
    near = nearest(similarity, 1, exclude_self=True)
    assert near.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    near = nearest(torch.ones(3, 3), 2, exclude_self=True)
    assert near.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_k_occurrence_worked_by_hand():
    # Nearest two: items 0 and 1; 0 and 2; 0, then 1 and 2 tie.
    similarity = [[0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.9, 0.5, 0.5, 0.1]]
    assert k_occurrence(similarity, 2).tolist() == [3.0, 1.5, 1.5, 0.0]
    # Deviations from the mean 1.5 are 1.5, 0, 0, −1.5: symmetric.
    assert float(hubness(similarity, 2)) == 0.0
    # One of four items is the neighbour of all: deviations 3, −1, −1, −1; 24/4 ÷ 3^1.5.
    hub = [[1.0, 0.0, 0.0, 0.0]] * 4
    assert float(hubness(hub, 1)) == pytest.approx(6 / 3**1.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_hubness_is_scipys_skewness_of_counts(seed, k):
    similarity = randn(12, 8, seed=seed)
    top = np.argsort(-similarity.numpy(), axis=1)[:, :k]
    counts = np.bincount(top.ravel(), minlength=8)
    expected = scipy.stats.skew(counts) if np.ptp(counts) else 0.0
    assert float(hubness(similarity, k)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_skewness_at_any_scale(scale):
    values = scipy.stats.expon.rvs(size=50, random_state=0)
    assert float(skewness(values * scale)) == pytest.approx(scipy.stats.skew(values))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300])
def test_equal_values_have_no_skewness(value):
    assert float(skewness(torch.full((7,), value, dtype=torch.float64))) == 0.0


def test_a_hub_is_found_and_belongs_to_its_direction():
    """In high dimensions a caption near the mean of all images is a neighbour of most of them."""
    image, text = (torch.nn.functional.normalize(randn(300, 16, seed=s), dim=-1) for s in (0, 1))
    image = torch.nn.functional.normalize(image + 0.5 * torch.eye(16)[0], dim=-1)
    text[:5] = torch.eye(16)[0].double()
    similarity = image @ text.T
    assert float(hubness(similarity)) > float(hubness(similarity.T)) + 1
    assert bool((k_occurrence(similarity, 10)[:5] > 30).all())


def test_a_collapsed_model_has_no_hubs_and_purity_at_chance():
    label = torch.tensor([0, 0, 0, 1])
    same = torch.ones(4, 4)
    assert float(hubness(same, 2)) == 0.0
    assert float(neighbour_purity(same, label, label, 2)) == pytest.approx((3 * 3 + 1) / 16)
    # Without itself: two of three others, three times, and none of three.
    alone = neighbour_purity(same, label, label, 2, exclude_self=True)
    assert float(alone) == pytest.approx(3 * (2 / 3) / 4)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_purity_is_that_of_a_slow_loop(exclude_self):
    similarity, label = randn(15, 15), np.arange(15) % 4
    other = label if exclude_self else np.roll(label, 3)
    found = []
    for query in range(15):
        gallery = [item for item in range(15) if not (exclude_self and item == query)]
        gallery.sort(key=lambda item: -float(similarity[query, item]))
        found += [other[item] == label[query] for item in gallery[:6]]
    purity = neighbour_purity(similarity, label, other, 6, exclude_self=exclude_self)
    assert float(purity) == pytest.approx(np.mean(found))


def test_purity_is_a_mean_over_the_queries():
    """Two queries and five items: one finds two of three alike, the other one."""
    similarity = [[0.9, 0.8, 0.7, 0.1, 0.0], [0.0, 0.1, 0.7, 0.8, 0.9]]
    purity = neighbour_purity(similarity, [1, 2], [1, 1, 3, 2, 4], 3)
    assert float(purity) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_the_gallerys_order_changes_nothing():
    similarity = torch.round(randn(20, 12))
    query, label = torch.arange(20) % 3, torch.arange(12) % 3
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = similarity[:, order]
    torch.testing.assert_close(hubness(shuffled, 4), hubness(similarity, 4))
    torch.testing.assert_close(
        neighbour_purity(shuffled, query, label[order], 4),
        neighbour_purity(similarity, query, label, 4),
    )


def test_batches_are_measured_run_by_run():
    runs, label = randn(2, 3, 9, 9), torch.arange(9) % 2
    image, text = randn(2, 3, 9, 4, seed=1), randn(2, 3, 9, 4, seed=2)

    def measured(place):
        return (
            hubness(runs[place], 3, exclude_self=True),
            neighbour_purity(runs[place], label, label, 3),
            relative_alignment(image[place], text[place]),
        )

    together = measured(...)
    for place in itertools.product(range(2), range(3)):
        for one, many in zip(measured(place), together, strict=True):
            assert float(one) == pytest.approx(float(many[place]))


@pytest.mark.parametrize("k", [0, 4, 1.5, True, None])
def test_a_k_without_sense_is_refused(k):
    with pytest.raises(MetricsError, match="k must be a whole number from 1 to 3"):
        nearest(torch.ones(2, 3), k)


def test_neighbours_at_the_edge():
    assert nearest([[0.3, 0.2]], 2).tolist() == [[1, 1]]
    assert nearest(torch.eye(2), 1, exclude_self=True).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (
            lambda: nearest(torch.ones(3, 3), 3, exclude_self=True),
            "k must be a whole number from 1 to 2, the neighbours that there are, not 3",
        ),
        (
            lambda: nearest(torch.ones(2, 3), 1, exclude_self=True),
            "with exclude_self the queries are the gallery and similarity is square, but its shape "
            "is (2, 3)",
        ),
        (lambda: nearest([[0.0, np.nan]], 1), "similarity holds 1 numbers that are not finite"),
        (lambda: skewness([0.0, np.nan]), "values holds 1 numbers that are not finite"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(refuse, said):
    with pytest.raises(MetricsError, match=f"^{re.escape(said)}"):
        refuse()


def test_relative_alignment_has_no_scale():
    """Unlike alignment it does not fall when everything shrinks."""
    image, text = randn(6, 4), randn(6, 4, seed=1) + 1
    expected = float(relative_alignment(image, text))
    assert float(relative_alignment(image / 9, text / 9)) == pytest.approx(expected)
    assert float(relative_alignment(image, image)) == 0.0


@pytest.mark.parametrize("measure", [hubness, neighbour_purity])
def test_ten_neighbours_unless_said_otherwise(measure):
    similarity, label = randn(15, 15), torch.arange(15) % 3
    labels = (label, label) if measure is neighbour_purity else ()
    for exclude_self in (False, True):
        assert float(measure(similarity, *labels, exclude_self=exclude_self)) == float(
            measure(similarity, *labels, 10, exclude_self=exclude_self)
        )
    found = [float(measure(similarity, *labels, 3, exclude_self=e)) for e in (False, True)]
    assert found[0] != found[1]


def test_skewness_of_each_row_by_itself():
    rows = np.array([[0.0, 1, 5, 2], [3e150, 1e150, 0, 9e150], [7, 7, 7, 7], [-1e-200, 0, 0, 0]])
    found = skewness(rows)
    assert found.shape == (4,)
    for value, row in zip(found, rows, strict=True):
        expected = scipy.stats.skew(row / np.abs(row).max()) if np.ptp(row) else 0
        assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 1, 1], "it is torch.float32 of shape (3,)"),
        ([0, 1], "it is torch.int64 of shape (2,)"),
        (torch.ones(3).cfloat(), "it is torch.complex64 of shape (3,)"),
    ],
)
def test_values_that_are_no_labels_are_refused_in_words(labels, said):
    good = torch.tensor([0, 1, 1])
    said = re.escape(f"must be one whole number for each of 3 items, but {said}")
    for both, name in (((labels, good), "query_label"), ((good, labels), "gallery_label")):
        with pytest.raises(MetricsError, match=f"^{name} {said}$"):
            neighbour_purity(torch.rand(3, 3), *both, 1)
