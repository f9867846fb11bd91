"""What users call an array: every public metric takes it, or names the argument."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from lib import metrics

RAW = np.random.default_rng(0).standard_normal((4, 6))
OWNER = np.array([2, 0, 1, 3])


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def with_gaps(values):
    """A column of a filtered frame: its index starts at 1."""
    return pd.DataFrame({"row": [99, *values]})["row"][1:]


FORMS = {
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
