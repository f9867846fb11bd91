"""Evaluations that broke other projects: collapsed models, and captions in any number and order."""

import pytest
import torch
from torch.nn import functional as F

from lib.metrics import collapsed, retrieval_metrics, retrieval_metrics_from_embeddings

IMAGES = [[0.1, 0.9, 0.5], [0.2, 0.8, 0.7]]
OWNER = [0, 0, 1]


@pytest.mark.parametrize("images", [10, 33])
@pytest.mark.parametrize("width", [1, 3, 256, 301])
def test_a_collapsed_model_scores_chance_in_any_order(images, width):
    vector = torch.randn(width, generator=torch.Generator().manual_seed(width))
    embeddings = F.normalize(vector, dim=0).expand(images, width)
    for order in (torch.arange(images), torch.randperm(images), torch.arange(images).flip(0)):
        measured = retrieval_metrics_from_embeddings(embeddings, embeddings, order)
        for direction in (measured.i2t, measured.t2i):
            for k in (1, 5, 10):
                assert float(direction.recall[k]) == pytest.approx(100 * k / images)
            assert float(direction.median_rank) == (images + 1) / 2
    assert collapsed(embeddings)


def test_one_half_collapsed_scores_chance_in_its_half():
    """All images have one embedding, so every caption finds them tied."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(50, 32, generator=generator)
    image = torch.randn(32, generator=generator).expand(10, 32)
    measured = retrieval_metrics_from_embeddings(image, text, torch.arange(50) % 10)
    assert float(measured.t2i.recall[1]) == pytest.approx(10)
    assert float(measured.t2i.recall[5]) == pytest.approx(50)
    assert collapsed(image)
    assert not collapsed(text)


def test_a_constant_matrix_scores_chance():
    """Five captions per image: i2t R@1 is 5 of 50; at K = 5 not quite half, as captions repeat."""
    measured = retrieval_metrics(torch.full((10, 50), 0.3), torch.arange(50) // 5)
    assert float(measured.i2t.recall[1]) == pytest.approx(10)
    assert float(measured.t2i.recall[5]) == pytest.approx(50)
    expected = 100 * (1 - 45 * 44 * 43 * 42 * 41 / (50 * 49 * 48 * 47 * 46))
    assert float(measured.i2t.recall[5]) == pytest.approx(expected)


def test_after_twenty_steps_at_a_learning_rate_of_1():
    """Whatever has become of the model, its score is near chance and the order is irrelevant."""
    measured = []
    for seed in range(8):
        torch.manual_seed(seed)
        towers = [
            torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
            for _ in range(2)
        ]
        inputs = torch.randn(2, 10, 8)
        optimiser = torch.optim.SGD([p for t in towers for p in t.parameters()], lr=1.0)
        for _ in range(20):
            image, text = (F.normalize(t(x), dim=-1) for t, x in zip(towers, inputs, strict=True))
            logits, target = image @ text.T / 0.01, torch.arange(10)
            loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        order = torch.randperm(10)
        one = retrieval_metrics_from_embeddings(image, text, torch.arange(10)).as_dict()
        other = retrieval_metrics_from_embeddings(image, text[order], order).as_dict()
        assert one == pytest.approx(other)
        measured.append(one["i2t R@1"])
    assert sum(measured) / len(measured) < 50


def test_a_dead_head_is_flagged():
    """All units of a layer are dead: whatever goes in, the bias alone comes out."""
    head = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    with torch.no_grad():
        head[0].bias.fill_(-100)
        out = head(torch.randn(10, 8, generator=torch.Generator().manual_seed(0)))
    measured = retrieval_metrics_from_embeddings(out, out, torch.arange(10))
    assert float(measured.i2t.recall[1]) == pytest.approx(10)
    assert collapsed(out)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (2, 0, 1)])
def test_ragged_captions_in_any_order(order):
    similarity = torch.tensor(IMAGES)[:, list(order)]
    owner = [OWNER[caption] for caption in order]
    measured = retrieval_metrics(similarity, owner, ks=(1, 5))
    assert float(measured.i2t.recall[1]) == 50
    assert float(measured.t2i.recall[1]) == pytest.approx(200 / 3)
    assert float(measured.i2t.recall[5]) == float(measured.t2i.recall[5]) == 100
    assert measured.trivial == (("i2t", 5), ("t2i", 5))
    # Ranks: A's a2 is first, B's b1 second; a1 is second among images, a2 and b1 first.
    assert [float(rank) for rank in measured.median_ranks] == [1.5, 1]


def test_an_image_without_captions_is_in_the_gallery_but_no_query():
    similarity = torch.tensor([*IMAGES, [0.3, 0.1, 0.6]])
    measured = retrieval_metrics(similarity, OWNER, ks=(1, 2, 5), per_query=True)
    assert float(measured.i2t.recall[1]) == 50
    assert float(measured.t2i.recall[1]) == pytest.approx(200 / 3)
    assert measured.t2i.per_query.expected_rank.tolist() == [3, 1, 1]
    assert (measured.i2t.queries, measured.i2t.gallery) == (2, 3)
    assert (measured.t2i.queries, measured.t2i.gallery) == (3, 3)
    assert measured.images_without_captions == 1
    assert measured.i2t.per_query.image.tolist() == [0, 1]
    assert measured.trivial == (("i2t", 5), ("t2i", 5))


def test_every_caption_of_an_image_counts():
    """Only the second caption of each image is found: 100 %, where the first alone gives 0."""
    similarity = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.4, 0.3, 0.0, 0.8]])
    assert float(retrieval_metrics(similarity, [0, 0, 1, 1], ks=(1,)).i2t.recall[1]) == 100
    assert float(retrieval_metrics(similarity[:, [0, 2]], [0, 1], ks=(1,)).i2t.recall[1]) == 0


def test_a_cut_off_that_no_ranking_can_miss_is_trivial():
    """Three of four captions are the image's: two places always hold one of them."""
    measured = retrieval_metrics(torch.rand(1, 4), [0, 0, 0, 0], ks=(1,))
    assert measured.trivial == (("i2t", 1), ("t2i", 1))
    measured = retrieval_metrics(torch.rand(2, 4), [0, 0, 0, 1], ks=(1, 2, 3, 4))
    assert measured.trivial == (("i2t", 4), ("t2i", 2), ("t2i", 3), ("t2i", 4))
