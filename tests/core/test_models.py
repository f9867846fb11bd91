"""Projection heads: standardisation, unit length, independent stacks; the learned temperature."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.models import DualEncoder, LearnedTemperature, ProjectionHead, matmul
from lib.utils.seeds import torch_generator


def head(runs: list[int], **options) -> ProjectionHead:
    built = ProjectionHead(6, 4, batch_shape=(len(runs),), **options)
    built.initialise([torch_generator(run, "test") for run in runs])
    return built


@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_a_run_does_not_depend_on_its_stack(hidden_layers):
    features = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    options = {"hidden_layers": hidden_layers, "hidden_features": 7, "dropout": 0.4}

    def embed(runs):
        model = head(runs, **options)
        for place, run in enumerate(runs):
            model.standardise(features[run], place)
        return model(features[runs], [torch_generator(run, "dropout") for run in runs])

    together = embed([0, 1, 2])
    for run in range(3):
        assert torch.equal(embed([run])[0], together[run])


@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_a_run_that_is_measured_alone_gets_the_bits_of_its_stack(hidden_layers):
    features = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(0))
    model = head([0, 1, 2], hidden_layers=hidden_layers, hidden_features=7)
    with torch.no_grad():
        for bias in model.biases:
            bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        together = model.project(features)
    for run in range(3):
        assert torch.equal(model.project_run(run, features[run : run + 1])[0], together[run])


def test_a_linear_head_is_a_linear_layer_on_standardised_features():
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    model = head([0])
    model.standardise(features, 0)
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    expected = standardised @ model.weights[0][0]
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(model(features[None])[0], expected)


def test_initialisation_has_the_bounds_of_a_linear_layer():
    weight = head([7]).weights[0]
    assert weight.abs().max() <= 1 / math.sqrt(6)
    assert weight.std() > 0.1


def test_a_constant_feature_is_centred_and_not_blown_up():
    features = torch.ones(4, 6)
    model = head([0])
    model.standardise(features, 0)
    assert torch.equal(model.scale, torch.ones_like(model.scale))
    assert model(features[None]).isfinite().all()


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    model = head([0], dropout=0.5)
    features = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(model(features), model(features))
    generators = [torch_generator(0, "dropout")]
    assert not torch.equal(model(features, generators), model(features, generators))
    kept = model._keep(torch.ones(1, 2000, 6), generators)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1, abs=0.05)


def test_embeddings_have_unit_length():
    model = DualEncoder(head([0, 1]), head([2, 3]))
    embedded = model(torch.randn(2, 5, 6), torch.randn(2, 9, 6))
    for part, count in zip(embedded, (5, 9), strict=True):
        assert part.shape == (2, count, 4)
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(2, count))


def test_learned_temperature_starts_where_asked_and_never_passes_its_cap():
    temperature = LearnedTemperature(0.07)
    assert temperature().item() == pytest.approx(0.07)
    temperature.load_state_dict({"log_scale": torch.tensor(10.0)})
    assert temperature().item() == pytest.approx(0.01)
    temperature.project()
    assert temperature.log_scale.item() == pytest.approx(math.log(100))


@pytest.mark.parametrize("start", [0.0, -0.1, 0.005])
def test_learned_temperature_refuses_a_bad_start(start):
    with pytest.raises(ValueError, match="must start at"):
        LearnedTemperature(start)


@given(st.integers(1, 5), *[st.integers(1, 20)] * 3, st.integers(0, 99))
def test_a_product_does_not_depend_on_its_stack(runs, m, k, n, seed):
    """Odd sizes put the matrices of a stack off the cache lines."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(runs, m, k, generator=generator).requires_grad_()
    right = torch.randn(runs, k, n, generator=generator).requires_grad_()
    product = matmul(left, right)
    product.square().sum().backward()
    torch.testing.assert_close(product, left @ right)
    room = torch.full_like(product, torch.nan)
    assert matmul(left.detach(), right.detach(), out=room) is room
    assert torch.equal(room, product)
    for run in range(runs):
        one, two = (p.detach()[run : run + 1].clone().requires_grad_() for p in (left, right))
        alone = matmul(one, two)
        alone.square().sum().backward()
        assert torch.equal(alone[0], product[run])
        assert torch.equal(one.grad[0], left.grad[run])
        assert torch.equal(two.grad[0], right.grad[run])
        torch.testing.assert_close(one.grad, 2 * alone.detach() @ two.detach().mT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features = 0; use a whole number from 1"),
        ({"out_features": -1}, "out_features = -1"),
        ({"hidden_features": 0}, "hidden_features = 0"),
        ({"hidden_layers": -1}, "hidden_layers = -1; use 0 for a linear head"),
        ({"dropout": 1.0}, "dropout = 1.0; use a rate from 0 to less than 1"),
        ({"dropout": math.nan}, "dropout = nan"),
        ({"batch_shape": (2, 3)}, r"batch_shape = \(2, 3\); a stack has one leading axis"),
    ],
)
def test_a_head_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectionHead(**({"in_features": 6, "out_features": 4} | arguments))


@pytest.mark.parametrize("shape", [(5, 7), (6,), ()])
@pytest.mark.parametrize("use", [ProjectionHead.__call__, ProjectionHead.standardise])
def test_features_of_another_length_are_refused(use, shape):
    said = re.escape(f"features of shape {shape}; this head takes (..., B, 6)")
    with pytest.raises(ValueError, match=said):
        use(ProjectionHead(6, 4), torch.zeros(shape))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_one_generator_per_run(count):
    model = ProjectionHead(6, 4, batch_shape=(2,))
    with pytest.raises(ValueError, match=f"generators: {count} of them for 2 runs"):
        model.initialise([torch.Generator() for _ in range(count)])


def test_heads_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match="have length 4, the text head's 5; give both the same"):
        DualEncoder(ProjectionHead(6, 4), ProjectionHead(6, 5))
