"""Heads in closed form against an independent solution, and their invariants."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from lib.models import canonical_heads


def features(pairs=300, widths=(7, 5), shared=3, seed=0):
    draw = np.random.default_rng(seed)
    common = draw.normal(size=(pairs, shared))
    both = [common @ draw.normal(size=(shared, w)) + draw.normal(size=(pairs, w)) for w in widths]
    return [torch.from_numpy((3 + 2 * one).astype(np.float32)) for one in both]


@torch.no_grad()
def similarities(heads, image, text):
    embedded = heads(image, text)
    return embedded.image @ embedded.text.mT


def oracle(image, text, ridges, power, kept):
    """Similarities by the generalised eigenvalue problem of both views at once."""
    x, y = [(np.asarray(f, np.float64) - f.mean(0).numpy()) for f in (image, text)]
    x, y = x / x.std(0), y / y.std(0)
    a, n = x.shape[1], len(x)
    joint = np.zeros((a + y.shape[1],) * 2)
    joint[:a, a:] = x.T @ y / n
    joint[a:, :a] = joint[:a, a:].T
    own = np.zeros_like(joint)
    own[:a, :a] = x.T @ x / n + ridges[0] * np.eye(a)
    own[a:, a:] = y.T @ y / n + ridges[1] * np.eye(y.shape[1])
    values, vectors = eigh(joint, own)
    best = np.argsort(-values)[:kept]
    scale = values[best] ** power
    v, t = x @ vectors[:a, best] * scale, y @ vectors[a:, best] * scale
    v, t = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (v, t))
    return v @ t.T


@pytest.mark.parametrize("ridges", [(1e-6, 1e-6), (0.1, 3.0), (10.0, 0.01)])
@pytest.mark.parametrize("power", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("kept", [2, 5])
def test_similarities_are_those_of_the_eigenvalue_problem(ridges, power, kept):
    image, text = features()
    heads = canonical_heads(
        image, text, kept, image_ridge=ridges[0], text_ridge=ridges[1], power=power
    )
    np.testing.assert_allclose(
        similarities(heads, image, text), oracle(image, text, ridges, power, kept), atol=2e-5
    )


def test_one_shared_direction_in_two_dimensions_by_hand():
    """x = (s, e) with s and e uncorrelated, y = s: ρ = 1 / (1 + r) and only s counts."""
    image = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    heads = canonical_heads(image, image[:, :1], 1, image_ridge=1.0, text_ridge=1.0)
    # C_xx + I = 2·I, so both weights are ρ / √2 = 0.5 / √2, up to a common sign.
    expected = torch.tensor([[0.5 / 2**0.5], [0.0]])
    weight = heads.image.weights[0].detach()
    torch.testing.assert_close(weight * weight[0].sign(), expected)
    torch.testing.assert_close(heads.text.weights[0].detach().abs(), expected[:1])


def test_units_and_order_of_the_pairs_do_not_matter():
    image, text = features()
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(0))
    found = similarities(canonical_heads(image, text, 4), image, text)
    shuffled = canonical_heads(image[order], text[order], 4)
    torch.testing.assert_close(found, similarities(shuffled, image, text), atol=1e-5, rtol=0)
    units = image * 7 - 2, text / 3
    scaled = similarities(canonical_heads(*units, 4), *units)
    torch.testing.assert_close(found, scaled, atol=1e-5, rtol=0)


def test_captions_of_one_image_are_as_many_pairs():
    image, text = features(pairs=60)
    owner = torch.randperm(60, generator=torch.Generator().manual_seed(1)) // 3
    found = canonical_heads(image[:20], text, 4, owner=owner)
    expected = canonical_heads(image[:20][owner], text, 4)
    torch.testing.assert_close(found(image, text), expected(image, text), atol=1e-5, rtol=1e-5)


def test_coordinates_beyond_the_shorter_feature_are_zero():
    image, text = features()
    wide = canonical_heads(image, text, 64)
    assert wide.image.weights[0][:, 5:].abs().max() == 0
    narrow = canonical_heads(image, text, 5)(image, text)
    torch.testing.assert_close(wide(image, text).image[:, :5], narrow.image)


def test_a_constant_feature_and_fewer_pairs_than_features_are_taken():
    image, text = features(pairs=4, widths=(12, 9))
    image[:, 3] = 1.5
    found = similarities(canonical_heads(image, text, 6), image, text)
    assert bool(found.isfinite().all())
    assert found.argmax(dim=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_ridge": 0.0}, "image_ridge = 0.0; use a positive number"),
        ({"text_ridge": float("inf")}, "text_ridge = inf"),
        ({"power": -1.0}, "power = -1.0; use 0 or a positive number"),
        ({"image": torch.ones(1, 2)}, r"they are \(1, 2\) and \(300, 5\)"),
        ({"image": torch.ones(3, 2)}, "3 images and 300 captions; give owner"),
        ({"owner": torch.arange(1, 301)}, r"owner must be \(300,\) rows from 0 to 299; .* to 300"),
        ({"text": torch.full((300, 5), torch.nan)}, "text holds values that are not finite"),
        ({"out_features": 0}, "out_features = 0"),
    ],
)
def test_arguments_out_of_their_range_are_named(change, message):
    image, text = features()
    arguments = {"image": image, "text": text, "out_features": 4} | change
    with pytest.raises(ValueError, match=message):
        canonical_heads(**arguments)
