"""Recall from galleries of any kind and size, and what other libraries' rules make of ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate, RetrievalRecall

from lib.metrics import MetricsError, gallery, recall_at_k, retrieval_metrics_from_embeddings

KS = (1, 5, 10)


def made(seed: int, images: int = 12, captions: int = 40, width: int = 6, coarse: bool = False):
    """Ragged captions near their images, in any order; coarse embeddings tie often."""
    draws = torch.Generator().manual_seed(seed)
    image = torch.randn(images, width, generator=draws)
    owner = torch.randint(0, images, (captions,), generator=draws)
    text = image[owner] + torch.randn(captions, width, generator=draws)
    return (image.round(), text.round(), owner) if coarse else (image, text, owner)


def numbers(measured) -> list[float]:
    return [float(x) for x in (*measured.recalls, *measured.median_ranks)]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_blocks_change_nothing(seed, rows, columns, coarse):
    image, text, owner = made(seed, coarse=coarse)
    expected = numbers(retrieval_metrics_from_embeddings(image, text, owner, KS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "IMAGES_AT_ONCE", rows)
        patch.setattr(gallery, "CAPTIONS_AT_ONCE", columns)
        assert numbers(recall_at_k(image, text, owner, KS)) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_kind_of_gallery_gives_the_same(tmp_path, dtype):
    image, text, owner = made(1)
    image, text = (x.to(getattr(torch, dtype)) for x in (image, text))
    expected = numbers(retrieval_metrics_from_embeddings(image, text, owner, KS))
    np.save(tmp_path / "text.npy", text.numpy())
    mapped = np.load(tmp_path / "text.npy", mmap_mode="r")
    kinds = [
        (image, text),
        (image.numpy(), mapped),
        (image.split(5), text.split(7)),
        (
            (part.numpy() for part in image.split(4)),
            iter(mapped[i : i + 9] for i in range(0, 40, 9)),
        ),
    ]
    for kind in kinds:
        assert numbers(recall_at_k(*kind, owner.numpy(), KS)) == expected


def test_scales_far_apart_keep_their_digits():
    image, text, owner = made(2)
    expected = numbers(recall_at_k(image, text, owner))
    assert numbers(recall_at_k(image.double() * 1e100, text.double() * 1e-100, owner)) == expected


def asked(image, text, owner):
    """Each direction's scores and positives, (queries, gallery), without queries that have none."""
    scores, positive = image @ text.T, owner[None] == torch.arange(len(image))[:, None]
    present = positive.any(dim=1)
    return {"i2t": (scores[present], positive[present]), "t2i": (scores.T, positive.T)}


def by_torchmetrics(metric, scores, positive, **options) -> float:
    query = torch.arange(len(scores))[:, None].expand_as(scores)
    flat = (x.flatten() for x in (scores, positive, query))
    return 100 * metric(**options)(*flat).item()


def by_ranx(scores, positive, metric) -> float:
    ranx = pytest.importorskip("ranx")
    names = [f"item {item}" for item in range(scores.shape[1])]
    run = {str(q): dict(zip(names, row.tolist(), strict=True)) for q, row in enumerate(scores)}
    relevant = {
        str(q): {name: 1 for name, hit in zip(names, row.tolist(), strict=True) if hit}
        for q, row in enumerate(positive)
    }
    return 100 * float(ranx.evaluate(ranx.Qrels(relevant), ranx.Run(run), metric))


def clip_benchmark_recall(scores: torch.Tensor, positive: torch.Tensor, k: int) -> float:
    """CLIP_benchmark's ``recall_at_k`` (zeroshot_retrieval.py), for queries in rows, as it counts.

    The true positives among the top k over the query's positives; its caller reports whether that
    is above zero, in percent.
    """
    top = torch.topk(scores, k, dim=1).indices
    hits = positive.gather(1, top).sum(dim=1) / positive.sum(dim=1)
    return 100 * (hits > 0).float().mean().item()


SORTING_RULES = {
    "torchmetrics": lambda *asked, k: by_torchmetrics(RetrievalHitRate, *asked, top_k=k),
    "ranx": lambda *asked, k: by_ranx(*asked, f"hit_rate@{k}"),
    "CLIP_benchmark": clip_benchmark_recall,
}


@pytest.mark.parametrize("rule", SORTING_RULES)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_rules_that_sort_agree_where_nothing_ties(rule, seed):
    gallery_of = made(seed, images=20, captions=60)
    found = recall_at_k(*gallery_of, KS)
    for direction, both in asked(*gallery_of).items():
        for k in KS:
            theirs = SORTING_RULES[rule](*both, k=k)
            assert float(getattr(found, direction).recall[k]) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("rule", SORTING_RULES)
def test_rules_that_sort_report_where_the_answer_of_a_tie_stands(rule):
    """A collapsed model's R@1 is 0 % or 100 % by the gallery's order; ours is the mean over all."""
    size = 10
    scores, answers = torch.zeros(1, size), torch.eye(size, dtype=torch.bool)
    said = [SORTING_RULES[rule](scores, answer[None], k=1) for answer in answers]
    assert {*said} == {0.0, 100.0}
    same = torch.ones(size, 4)
    found = recall_at_k(same, same, range(size), ks=(1,))
    assert float(found.t2i.recall[1]) == pytest.approx(sum(said) / size)
    assert float(found.t2i.recall[1]) == pytest.approx(10)


def test_captions_that_two_images_share_are_half_a_hit_where_a_sort_says_all_or_none():
    """Two captions with the same words tie in every model, trained or not."""
    image, text = torch.eye(2), torch.tensor([[0.8, 0.6], [0.8, 0.6]])
    found = recall_at_k(image, text, [0, 1], ks=(1,))
    assert float(found.i2t.recall[1]) == 50
    scores, positive = asked(image, text, torch.tensor([0, 1]))["i2t"]
    each = [clip_benchmark_recall(scores[[q]], positive[[q]], 1) for q in range(2)]
    assert sorted(each) == [0, 100]


def test_torchmetrics_recall_is_not_the_fields_where_an_image_has_several_captions():
    """It divides by an image's captions; R@K, as in the papers, is the library's hit rate."""
    gallery_of = torch.eye(2), torch.eye(2)[[0, 0, 0, 1]], torch.tensor([0, 0, 0, 1])
    scores, positive = asked(*gallery_of)["i2t"]
    assert float(recall_at_k(*gallery_of, ks=(1,)).i2t.recall[1]) == 100
    by = by_torchmetrics(RetrievalRecall, scores, positive, top_k=1)
    assert by == pytest.approx((1 / 3 + 1) / 2 * 100, abs=1e-4)


def test_an_image_without_captions_is_no_query_here_and_a_miss_elsewhere():
    """torchmetrics skips it if told to; CLIP_benchmark divides by its number of captions, 0."""
    image, text = torch.eye(3), torch.eye(3)[:2]
    both = image @ text.T, torch.eye(3, dtype=torch.bool)[:, :2]
    found = recall_at_k(image, text, [0, 1], ks=(1,))
    assert found.images_without_captions == 1
    for rule in ("torchmetrics", "CLIP_benchmark"):
        assert SORTING_RULES[rule](*both, k=1) == pytest.approx(200 / 3, abs=1e-4)
    skipped = by_torchmetrics(RetrievalHitRate, *both, top_k=1, empty_target_action="skip")
    assert float(found.i2t.recall[1]) == skipped == 100


@pytest.mark.parametrize(
    ("image", "text", "owner", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), [0, 1], "same d, but they have 3 and 4"),
        (torch.ones(2), torch.ones(2, 2), [0, 1], r"image must be \(n, d\)"),
        ([], torch.ones(2, 2), [0, 1], "image is empty: no chunk"),
        (torch.ones(2, 2), [torch.ones(1, 2), torch.ones(1, 3)], [0, 1], "text, chunk 1, must be"),
        (torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, torch.nan]]), [0, 1], r"at \[1, 1\]"),
        (torch.ones(2, 2), torch.ones(2, 2), [0, 2], r"caption_owner\[1\] is 2"),
        (torch.ones(2, 2), 7, [0, 1], "not a int"),
    ],
)
def test_bad_galleries_are_named(image, text, owner, message):
    with pytest.raises(MetricsError, match=message):
        recall_at_k(image, text, owner)


def test_chunks_are_read_in_their_own_precision_and_named():
    """In single precision the second caption would tie with the first; the third is the best."""
    image, fine = torch.eye(2).double(), 1 + 2**-25
    text = torch.tensor([[1.0, 0.0], [fine, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = recall_at_k(iter([image]), iter(text.split(2)), [1, 0, 1], ks=(1,))
    assert float(found.i2t.recall[1]) == 100
    with pytest.raises(
        MetricsError, match=r"^text, chunk 1, is float64, but those before are not$"
    ):
        recall_at_k(image, [text[:2].float(), text[2:]], [0, 0, 1])
    recall_at_k(image, [text[:2], text[2:].float()], [0, 0, 1])
    text[2, 1] = torch.nan
    with pytest.raises(MetricsError, match=r"^text, chunk 1, holds 1 numbers"):
        recall_at_k(image, text.split(2), [0, 0, 1])


def test_chunks_without_rows_are_refused():
    with pytest.raises(MetricsError, match=r"^text, chunk 0, is empty: its shape is \(0, 2\)"):
        recall_at_k(torch.eye(2), [torch.ones(0, 2)], [])
    with pytest.raises(MetricsError, match=r"^text is empty: no chunk came$"):
        recall_at_k(torch.eye(2), iter(()), [])


@pytest.mark.parametrize(("dtype", "power"), [("float32", 100), ("float64", 400)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_length_of_the_vectors_plays_no_role(dtype, power, sign):
    image, text, owner = made(5)
    image, text = image.to(getattr(torch, dtype)), text.to(getattr(torch, dtype))
    expected = numbers(recall_at_k(image, text, owner, KS))
    assert numbers(recall_at_k(image * 2.0 ** (sign * power), text, owner, KS)) == expected


@pytest.mark.parametrize("power", [700, -700])
def test_lengths_whose_squares_leave_float64_are_refused_only_in_a_gallery_of_parts(
    power,
):
    image, text, owner = made(5)
    image, text = image.double(), text.double()
    with pytest.raises(MetricsError, match="text has norms beyond float64"):
        recall_at_k(image, text * 2.0**power, owner, KS)
    expected = numbers(retrieval_metrics_from_embeddings(image, text, owner, KS))
    longer = image * 2.0**power
    assert numbers(retrieval_metrics_from_embeddings(longer, text, owner, KS)) == expected


def test_vectors_of_zeros_all_tie():
    found = recall_at_k(np.zeros((4, 3)), np.zeros((4, 3)), range(4), (1,))
    assert float(found.t2i.recall[1]) == 25


def test_vectors_of_one_number_are_vectors():
    found = recall_at_k(np.array([[1.0], [-1.0]]), np.array([[1.0], [-2.0]]), [0, 1], (1,))
    assert float(found.t2i.recall[1]) == 100


def test_a_number_that_is_not_finite_is_named_by_its_side_and_part(monkeypatch):
    monkeypatch.setattr(gallery, "CAPTIONS_AT_ONCE", 4)
    image, text, owner = made(6)
    text[9, 2] = float("nan")
    with pytest.raises(MetricsError, match=r"text holds 1 .* \[1, 2\].*counted from row 8 on"):
        recall_at_k(image, text, owner, KS)
