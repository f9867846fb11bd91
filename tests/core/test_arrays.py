"""What users call an array: every public metric and statistic takes it, or names the argument."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from lib import metrics, statistics

RAW = np.random.default_rng(0).standard_normal((4, 6))
OWNER = np.array([2, 0, 1, 3])


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def with_gaps(values):
    """A column of a filtered frame: its index starts at 1."""
    return pd.DataFrame({"row": [99, *values]})["row"][1:]


class Bare:
    """An object that has nothing of an array but the conversion to one."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


FORMS = {
    "a bare conversion": Bare,
    "a list of arrays": list,
    "a table of arrow": lambda v: pa.table({str(i): v[:, i] for i in range(v.shape[1])}),
    "a frame": pd.DataFrame,
    "a frame of half its rows": lambda v: pd.DataFrame(np.repeat(v, 2, axis=0))[::2],
    "negative strides": lambda v: v[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "another byte order": lambda v: v.astype(v.dtype.newbyteorder(">")),
    "read-only": read_only,
    "single precision": lambda v: v.astype(np.float32),
    "extended precision": lambda v: v.astype(np.longdouble),
    "nested lists": lambda v: v.tolist(),
    "a list of tensors": lambda v: [torch.tensor(row.copy()) for row in v],
    "a tensor with gradients": lambda v: torch.tensor(v.copy(), requires_grad=True),
    "objects": lambda v: v.astype(object),
}
OWNERS = {
    "a filtered column": with_gaps,
    "a column that may lack values": lambda v: pd.Series(v, dtype="Int64"),
    "a column of arrow": lambda v: pa.array(v),
    "negative strides": lambda v: v[::-1].copy()[::-1],
    "another byte order": lambda v: v.astype(">i4"),
    "unsigned": lambda v: v.astype(np.uint16),
    "unsigned, of 64 bits": lambda v: v.astype(np.uint64),
    "unsigned, a tensor": lambda v: torch.tensor(v).to(torch.uint32),
    "read-only": read_only,
    "a range": lambda v: [int(one) for one in v],
    "objects": lambda v: v.astype(object),
}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("form", FORMS)
def test_every_metric_takes_every_form_of_numbers(form):
    make = FORMS[form]
    square = RAW[:, :4]
    calls = {
        "ranks": lambda m: metrics.ranks(m(square), OWNER)[0].above,
        "retrieval": lambda m: metrics.retrieval_metrics(m(square), OWNER, ks=(1,)).rsum,
        "recall": lambda m: metrics.recall_at_k(m(RAW), m(RAW[::-1]), OWNER, ks=(1, 2)).rsum,
        "embeddings": lambda m: (
            metrics.retrieval_metrics_from_embeddings(m(RAW), m(RAW[::-1]), OWNER, ks=(1,)).rsum
        ),
        "spread": lambda m: metrics.spread(m(RAW)),
        "gap": lambda m: metrics.modality_gap(m(RAW), m(RAW[::-1])),
        "alignment": lambda m: metrics.alignment(m(RAW), m(RAW[::-1])),
        "uniformity": lambda m: metrics.uniformity(m(RAW)),
        "nearest": lambda m: metrics.nearest(m(square), 2),
        "hubness": lambda m: metrics.hubness(m(square), 1),
        "purity": lambda m: metrics.neighbour_purity(m(square), OWNER % 2, OWNER % 2, 2),
        "skewness": lambda m: metrics.skewness(m(RAW)),
    }
    if "list" in form:  # To recall_at_k a list is one of chunks.
        del calls["recall"]
    for name, call in calls.items():
        found, expected = call(make), call(np.copy)
        assert np.allclose(found, expected, atol=1e-5), (form, name)


def test_embeddings_of_eight_bits_are_those_of_their_values():
    eight = torch.tensor(RAW).to(torch.float8_e4m3fn)
    assert metrics.spread(eight) == metrics.spread(eight.float())
    assert metrics.recall_at_k(eight, RAW, OWNER, ks=(1,)).rsum.isfinite()


def test_numbers_beyond_a_signed_integer_keep_their_size():
    large = np.array([[2**63 + 2**20, 0], [0, 1]], dtype=np.uint64)
    for form in (large, torch.tensor(large)):
        assert float(metrics.nearest(form, 1).argmax(-1)[0]) == 0


@pytest.mark.parametrize("kind", ["sparse", "meta", "nested"])
def test_a_tensor_without_dense_numbers_is_named(kind):
    tensor = torch.tensor(RAW)
    odd = {"sparse": tensor.to_sparse, "meta": lambda: tensor.to("meta")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch's own word on nested tensors.
        made = odd.get(kind, lambda: torch.nested.nested_tensor([tensor[:2], tensor[2:]]))()
    for call in (metrics.spread, lambda m: metrics.recall_at_k(m, RAW, OWNER)):
        with pytest.raises(metrics.MetricsError, match=f"^(embeddings|image) is a {kind} tensor"):
            call(made)
    if kind == "meta":
        with pytest.raises(metrics.MetricsError, match=r"^caption_owner is a meta tensor"):
            metrics.ranks(RAW, made[:, 0].long())


@pytest.mark.parametrize("chunks", [{1, 2}, [RAW, None], ["ab"], range(3)])
def test_chunks_that_hold_no_rows_are_named(chunks):
    with pytest.raises(metrics.MetricsError, match=r"^image, chunk \d, must"):
        metrics.recall_at_k(chunks, RAW, OWNER)


@pytest.mark.parametrize("form", OWNERS)
def test_owners_and_labels_come_in_every_form_of_integers(form):
    given = OWNERS[form](OWNER)
    square = RAW[:, :4]
    for call in (
        lambda owner: metrics.recall_at_k(RAW, RAW[::-1], owner, ks=(1, 2)).rsum,
        lambda owner: metrics.retrieval_metrics(square, owner, ks=(1,)).rsum,
        lambda owner: metrics.neighbour_purity(square, owner, OWNER, 2),
    ):
        assert float(call(given)) == float(call(OWNER))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: metrics.spread([["a", "b"]]), "embeddings must hold numbers"),
        (lambda: metrics.spread([[1.0], [1.0, 2.0]]), "embeddings must hold numbers in rows of"),
        (lambda: metrics.spread(np.array([["a"]])), "embeddings must hold numbers"),
        (lambda: metrics.spread(np.array([[None]])), "embeddings must hold numbers"),
        (lambda: metrics.spread(pd.DataFrame({"at": pd.to_datetime(["2020"])})), "embeddings must"),
        (lambda: metrics.spread(np.ma.masked_less(RAW, 0)), "embeddings is a masked array"),
        (lambda: metrics.skewness({"a": 1}), "values must hold numbers"),
        (lambda: metrics.ranks(RAW, ["0", "1"]), "caption_owner must hold numbers"),
        (lambda: metrics.ranks(RAW, pd.Series([0, None] * 3)), "caption_owner must hold integers"),
        (
            lambda: metrics.ranks(RAW, pd.Series([0, None] * 3, dtype="Int64")),
            "caption_owner must hold integers",
        ),
        (
            lambda: metrics.neighbour_purity(np.eye(2), ["x", "y"], [0, 1], 1),
            "query_label must hold numbers",
        ),
    ],
)
def test_what_holds_no_numbers_is_named(call, said):
    with pytest.raises(metrics.MetricsError, match=f"^{said}"):
        call()


HITS, IMAGES = np.array([1.0, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    "make",
    [
        lambda v: torch.tensor(v, dtype=torch.float32, requires_grad=True),
        with_gaps,
        lambda v: v[::-1].copy()[::-1],
        lambda v: v.astype(v.dtype.newbyteorder(">")),
        read_only,
        Bare,
        lambda v: v.astype(object),
    ],
)
def test_an_interval_takes_every_form_of_numbers(make):
    found = statistics.bootstrap_by_image(make(HITS), make(IMAGES), resamples=50)
    assert found == statistics.bootstrap_by_image(HITS, IMAGES, resamples=50)


def test_seeds_map_to_numbers_in_tensors():
    ours = {seed: torch.tensor(2.0 + seed, requires_grad=True) for seed in range(3)}
    compared = statistics.paired_comparison(ours, {0: 1.0, 1: 1.0, 2: 1.5})
    assert compared == statistics.paired_comparison(
        {0: 2.0, 1: 3.0, 2: 4.0}, {0: 1.0, 1: 1.0, 2: 1.5}
    )


MASKED = np.ma.array(HITS, mask=[0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: statistics.bootstrap_by_image(MASKED, IMAGES), "per_query is a masked array"),
        (lambda: statistics.bootstrap_by_image(HITS, MASKED), "image is a masked array"),
        (lambda: statistics.bootstrap_by_image(["a"] * 6, IMAGES), "per_query must be an array"),
        (lambda: statistics.bootstrap_by_image(HITS + 1j, IMAGES), "per_query must be an array"),
        (lambda: statistics.bootstrap_by_image([[1], [1, 2]], IMAGES), "per_query must be an arr"),
        (
            lambda: statistics.bootstrap_by_image(torch.ones(6, device="meta"), IMAGES),
            "per_query must be an array",
        ),
        (
            lambda: statistics.bootstrap_by_image(HITS, [0, 0, 1, 1, None, 2]),
            r"image\[4\] is missing",
        ),
        (
            lambda: statistics.bootstrap_by_image(HITS, pd.array([0, 0, 1, 1, 2, None])),
            r"image\[5\] is missing",
        ),
        (lambda: statistics.compare_methods({"method": ["a"]}, "a", ["x"]), "table must be a Data"),
        (lambda: statistics.compare_pairs(HITS, [("a", "b")], ["x"]), "table must be a DataFrame"),
        (lambda: statistics.minimum_detectable_effect("1", 20), "standard_deviation must be a num"),
        (lambda: statistics.minimum_detectable_effect(HITS, 20), "standard_deviation must be a nu"),
        (lambda: statistics.minimum_detectable_effect(1.0, 20.5), "seeds must be a whole number"),
        (lambda: statistics.minimum_detectable_effect(1.0, 20, "a"), "power must be a number"),
    ],
)
def test_what_a_statistic_cannot_use_is_named(call, said):
    with pytest.raises(statistics.StatisticsError, match=f"^{said}"):
        call()
