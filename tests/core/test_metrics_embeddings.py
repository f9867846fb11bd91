"""From embeddings: the same ranks whatever the blocks, the threads and the precision."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics import (
    MetricsError,
    ranking,
    ranks,
    ranks_from_embeddings,
    retrieval_metrics_from_embeddings,
)
from lib.metrics.parallel import in_parts


def equal(one, other):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("above", "tied", "tied_positives", "image")
    )


@pytest.fixture(scope="module")
def duplicated():
    """500 images and 2,500 captions on the unit sphere, a third of them copies of others."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    image = unit(torch.randn(500, 64, generator=generator), dim=-1)
    text = unit(torch.randn(2500, 64, generator=generator), dim=-1)
    image[::3] = image[1]
    text[::3] = text[torch.arange(0, 2500, 3) % 7]
    return image, text, torch.randperm(2500, generator=generator) % 500


@pytest.mark.parametrize("chunk_size", [1, 7, 10_000])
def test_every_chunk_size_gives_the_same_ranks(duplicated, chunk_size):
    whole = ranks_from_embeddings(*duplicated)
    assert int(whole[1].tied.max()) >= 167, "the copies of an image must tie"
    assert equal(ranks_from_embeddings(*duplicated, chunk_size=chunk_size), whole)


def test_blocks_of_a_matrix_give_the_ranks_of_the_whole(monkeypatch):
    image, text, owner = near_ties()
    similarity = (image @ text.T).round(decimals=1)
    whole = ranks(similarity, owner)
    monkeypatch.setattr(ranking, "BLOCK_ROWS", 3)
    monkeypatch.setattr(ranking, "BLOCK", 24)
    assert equal(ranks(similarity, owner), whole)


def test_blocks_in_both_axes_give_the_same_ranks(duplicated, monkeypatch):
    whole = ranks_from_embeddings(*duplicated)
    monkeypatch.setattr(ranking, "BLOCK", 30_000)
    monkeypatch.setattr(ranking, "STRIP", 1_000)
    assert equal(ranks_from_embeddings(*duplicated, chunk_size=100), whole)


def exact_scores(image, text):
    """The products, in Python's whole numbers: no rounding anywhere."""
    scale = 2**40
    v = [[int(x * scale) for x in row] for row in image.double().tolist()]
    t = [[int(x * scale) for x in row] for row in text.double().tolist()]
    return np.array([[sum(a * b for a, b in zip(r, c, strict=True)) for c in t] for r in v], object)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_close_calls_are_decided_exactly(seed):
    """Scores that differ by less than a float32 product's error keep their true order."""
    draw = np.random.default_rng(seed)
    base = draw.standard_normal(16)
    # Multiples of 2^-20 lie on the grid, so the whole-number scores are the truth.
    nudge = draw.integers(-2, 3, (12, 16)) * 2.0**-20
    text = torch.tensor(np.round(base * 2**10) / 2**10 / 8 + nudge)
    image = torch.tensor(np.round(draw.standard_normal((4, 16)) * 2**10) / 2**13)
    owner = np.arange(12) % 4
    score = exact_scores(image, text)
    # A whole score has more digits than a float64 holds, but its rank within the matrix has few.
    order = np.unique(score.flatten(), return_inverse=True)[1].reshape(score.shape)
    assert equal(ranks_from_embeddings(image, text, owner), ranks(order, owner))


def test_a_float32_product_would_get_close_calls_wrong(duplicated):
    """What the exact path is for: on the grid, ours equals the exact product of float64."""
    image, text, owner = duplicated
    step = 2.0**-ranking.GRID_BITS
    nudge = 4 * step * torch.randn(2500, 64, generator=torch.Generator().manual_seed(1))
    text = torch.cat([text.double(), text + nudge])
    image, text = (torch.round(0.99 * e.double() / step) * step for e in (image, text))
    owner = owner.repeat(2)
    truth = ranks(image @ text.T, owner)
    assert equal(ranks_from_embeddings(image, text, owner), truth)
    single = ranks(image.float() @ text.float().T, owner)
    assert int((single[0].above != truth[0].above).sum()) > 10


@pytest.mark.parametrize("path", ["doubt", "exact"])
def test_both_ways_to_settle_doubts_agree(duplicated, monkeypatch, path):
    whole = ranks_from_embeddings(*duplicated)
    monkeypatch.setattr(ranking, "EXACT_SHARE", {"doubt": 1.0, "exact": -1.0}[path])
    assert equal(ranks_from_embeddings(*duplicated), whole)


def test_a_product_of_low_precision_is_found_out(duplicated, monkeypatch):
    """A user may have let float32 products run in bfloat16: the ranks stay the same."""
    whole = ranks_from_embeddings(*duplicated)
    decide = []
    monkeypatch.setattr(ranking, "_decide", lambda *_: decide.append(1))
    product = torch.Tensor.__matmul__

    def coarse(a, b):
        if a.dtype == torch.float32:
            return product(a.bfloat16(), b.bfloat16()).float()
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", coarse)
    assert equal(ranks_from_embeddings(*duplicated), whole)
    assert not decide


def test_autocast_and_threads_change_nothing(duplicated):
    whole = ranks_from_embeddings(*duplicated)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert equal(ranks_from_embeddings(*duplicated), whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    try:
        assert equal(ranks_from_embeddings(*duplicated), whole)
    finally:
        torch.set_num_threads(threads)


def test_a_call_within_a_part_finds_the_threads_taken():
    """On sixteen cores each part has two threads, and would wait for itself."""
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(16)

    def outer(part):
        inner = []
        in_parts(lambda number: number + part, [1, 2, 3], inner.append, torch.device("cpu"))
        return inner

    try:
        in_parts(outer, [10, 20], found.append, torch.device("cpu"))
        in_parts(outer, [30], found.append, torch.device("cpu"))
        assert torch.get_num_threads() == 16
    finally:
        torch.set_num_threads(threads)
    assert found == [[11, 12, 13], [21, 22, 23], [31, 32, 33]]


@pytest.fixture
def four_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_threads_take_blocks_and_give_the_ranks_of_one_thread(monkeypatch, four_threads, share):
    """Also of vectors that float32 can't order, in inference mode, and through the gallery."""
    monkeypatch.setattr(ranking, "BLOCK", 64)
    monkeypatch.setattr(ranking, "STRIP", 64)
    monkeypatch.setattr(ranking, "EXACT_SHARE", share)
    count, seen = ranking._count, []

    def watched(*arguments):
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return count(*arguments)

    monkeypatch.setattr(ranking, "_count", watched)
    image, text, owner = near_ties()
    several = ranks_from_embeddings(image, text, owner)
    similarities = ranks(image @ text.T, owner)
    assert len({thread for thread, _ in seen}) > 1
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 4
    with torch.inference_mode():
        assert equal(ranks_from_embeddings(image + 0, text + 0, owner), several)
    torch.set_num_threads(1)
    assert equal(ranks_from_embeddings(image, text, owner), several)
    assert equal(ranks(image @ text.T, owner), similarities)


def test_what_fails_in_a_thread_is_raised_and_leaves_the_number_of_threads(four_threads):
    taken = []

    def work(part):
        if part == 2:
            raise MetricsError("part 2")
        return part

    for parts in (range(4), [2]):
        with pytest.raises(MetricsError, match=r"^part 2$"):
            in_parts(work, parts, taken.append, torch.device("cpu"))
        assert torch.get_num_threads() == 4
    assert taken == [0, 1]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4, 1e30])
def test_scale_changes_nothing(duplicated, scale):
    image, text, owner = duplicated
    power = 2.0 ** round(np.log2(scale))
    whole = ranks_from_embeddings(image, text, owner)
    assert equal(ranks_from_embeddings(image * power, text * power, owner), whole)


def test_lengths_may_differ_by_orders_of_magnitude():
    """A short caption's scores keep their digits beside those of a long one."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1e-20, 2e-20], [2e-20, 1e-20], [-1e15, -1e15]], dtype=torch.float64)
    i2t, t2i = ranks_from_embeddings(image, text, [0, 1, 0])
    assert i2t.above.tolist() == [1, 1]
    assert t2i.above.tolist() == [1, 1, 0]
    assert t2i.tied.tolist() == [1, 1, 2]
    text[:2] *= 1e-70
    assert ranks_from_embeddings(image, text, [0, 1, 0])[0].above.tolist() == [1, 1]
    huge = torch.full((2, 2), 1e300, dtype=torch.float64)
    assert ranks_from_embeddings(huge, huge, [0, 1])[0].tied.tolist() == [2, 2]
    zero = torch.zeros(3, 2)
    assert ranks_from_embeddings(zero, zero, [0, 1, 2])[0].expected().tolist() == [2, 2, 2]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_products_on_the_grid_are_exact_in_any_order(seed):
    draw = torch.Generator().manual_seed(seed)
    a, b = (ranking._on_grid(torch.randn(8, 100, generator=draw)) for _ in range(2))
    order = torch.randperm(100, generator=draw)
    forward, shuffled = a @ b.T, (a[:, order] @ b[:, order].T)
    assert torch.equal(forward, shuffled)
    assert torch.equal(forward, (a[:, None] * b[None]).sum(-1))
    # It is the embeddings, to float32's precision and a common power of two.
    raw = torch.randn(8, 100, generator=torch.Generator().manual_seed(seed))
    ratio = torch.log2((a / raw).abs().median())
    assert float((a - raw * 2.0 ** ratio.round()).abs().max()) <= 2.0**-27


@pytest.mark.parametrize("chunk_size", [0, -1])
@pytest.mark.parametrize("measure", [ranks_from_embeddings, retrieval_metrics_from_embeddings])
def test_a_chunk_without_rows_is_refused(measure, chunk_size):
    with pytest.raises(MetricsError, match=f"chunk_size must be 1 or more, not {chunk_size}"):
        measure(torch.ones(2, 2), torch.ones(2, 2), [0, 1], chunk_size=chunk_size)


def test_gradients_are_not_kept():
    image = torch.randn(4, 3, requires_grad=True)
    measured = retrieval_metrics_from_embeddings(image, image, torch.arange(4))
    assert not measured.rsum.requires_grad


MEASURE = """
import resource, sys, torch
from lib.metrics import retrieval_metrics_from_embeddings
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
images, captions = int(sys.argv[1]), int(sys.argv[2])
draw = torch.Generator().manual_seed(0)
image, text = (torch.randn(n, 64, generator=draw) for n in (images, captions))
before = peak()
measured = retrieval_metrics_from_embeddings(image, text, torch.arange(captions) % images)
print(before, peak(), float(measured.rsum))
"""


def test_a_large_gallery_stays_within_its_memory(root):
    """The full matrix would take 1,280 MB. One of 20,000 × 100,000 peaks at 730 MB with the
    libraries, as the blocks are the same."""
    pytest.importorskip("resource", reason="peak memory is read as on Unix")
    images, captions = 8_000, 40_000
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(images), str(captions)],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )
    before, peak, rsum = (float(number) for number in run.stdout.split())
    assert peak - before < 400, f"{peak - before:.0f} MB more than the {before:.0f} MB before"
    chance = 100 * (1 + 5 + 10) * (5 / captions + 1 / images)
    assert 0.2 * chance < rsum < 3 * chance


def near_ties(images=20, captions=90):
    """Vectors of which many differ in a coordinate's last bits: float32 can't order them."""
    draws = torch.Generator().manual_seed(3)
    base = torch.nn.functional.normalize(torch.randn(4, 16, generator=draws), dim=-1).double()
    image = base[torch.arange(images) % 4]
    text = base[torch.arange(captions) % 4]
    image = image + 1e-9 * torch.randn(image.shape, generator=draws, dtype=torch.float64)
    text = text + 1e-9 * torch.randn(text.shape, generator=draws, dtype=torch.float64)
    return image, text, torch.arange(captions) % images


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_blocks_of_rows_and_columns_give_the_ranks_of_the_whole(monkeypatch, share):
    """Whether near ties are decided one by one, or a block with any is multiplied again."""
    data = near_ties()
    monkeypatch.setattr(ranking, "EXACT_SHARE", share)
    whole = ranks_from_embeddings(*data)
    monkeypatch.setattr(ranking, "BLOCK", 24)
    assert equal(ranks_from_embeddings(*data, chunk_size=4), whole)
