"""The rival schedulers against their papers' formulas, worked by hand or in plain Python."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from similarities import (
    assert_resumes,
    assert_stack_is_its_runs,
    random_similarity,
)
from torch.nn import functional as F

from lib.losses import info_nce, weighted_mean
from lib.rivals import (
    AnalyticUncertaintyWeights,
    CosineTemperature,
    DynamicWeightAverage,
    GradNorm,
    IndividualTemperatures,
    UncertaintyWeights,
)
from lib.schedulers import Fixed

SCHEDULERS = {
    "cosine": lambda **o: CosineTemperature(0.05, 0.5, 3, **o),
    "uncertainty": UncertaintyWeights,
    "analytic": lambda **o: AnalyticUncertaintyWeights(0.7, **o),
    "average": lambda **o: DynamicWeightAverage(0.5, period=2, **o),
}
"""The rivals that are called as a scheduler is."""


def direction_losses(similarity: torch.Tensor, tau: float) -> list[float]:
    """The mean cross-entropy of each direction."""
    labels = torch.arange(similarity.shape[0])
    return [F.cross_entropy(m / tau, labels).item() for m in (similarity, similarity.T)]


def shares(values: list[float]) -> list[float]:
    """The softmax of the values, times two: weights of the directions."""
    exponents = [math.exp(v) for v in values]
    return [2 * e / sum(exponents) for e in exponents]


# Schedulers


def test_cosine_temperature_by_its_formula():
    rule = CosineTemperature(low=0.07, high=0.3, period=10)
    path = [rule(torch.eye(3), 0.1).temperature.item() for _ in range(25)]
    expected = [0.07 + (0.3 - 0.07) * (1 + math.cos(2 * math.pi * t / 10)) / 2 for t in range(25)]
    assert path == pytest.approx(expected, rel=1e-6)
    assert (path[0], path[5]) == pytest.approx((0.3, 0.07))


def test_cosine_temperature_changes_nothing_else():
    similarity = random_similarity(0, 4).float()
    schedule, neutral = CosineTemperature(0.1, 0.2, 4)(similarity, 0.1), Fixed()(similarity, 0.1)
    assert torch.equal(schedule.weights, neutral.weights)
    assert torch.equal(schedule.sample_weights, neutral.sample_weights)


def test_uncertainty_weights_are_half_the_papers_objective():
    similarity = random_similarity(1, 6)
    rule = UncertaintyWeights().double()
    with torch.no_grad():
        rule.log_variance.copy_(torch.tensor([0.4, -0.3]))
    schedule = rule(similarity, 0.2)
    objective = weighted_mean(info_nce(similarity, 0.2), schedule) + rule.penalty()
    # A classification adds ℓ / σ² + log σ.
    sigmas = [math.exp(0.2), math.exp(-0.15)]
    losses = direction_losses(similarity, 0.2)
    paper = sum(ell / s**2 + math.log(s) for ell, s in zip(losses, sigmas, strict=True))
    assert objective.item() == pytest.approx(paper / 2)


def test_uncertainty_weights_settle_at_half_the_inverse_loss():
    similarity = random_similarity(2, 6)
    rule = UncertaintyWeights().double()
    optimiser = torch.optim.SGD(rule.parameters(), lr=2.0)
    for _ in range(40):
        optimiser.zero_grad()
        schedule = rule(similarity, 0.2)
        (weighted_mean(info_nce(similarity, 0.2), schedule) + rule.penalty()).backward()
        optimiser.step()
    expected = [1 / (2 * ell) for ell in direction_losses(similarity, 0.2)]
    assert rule(similarity, 0.2).weights.tolist() == pytest.approx(expected)


def test_gradients_of_uncertainty_weights_by_finite_differences():
    similarity = random_similarity(3, 4, (2,)).requires_grad_()
    rule = UncertaintyWeights(batch_shape=(2,)).double()

    def objective(similarity, log_variance):
        weights = torch.func.functional_call(
            rule, {"log_variance": log_variance}, (similarity, 0.3)
        )
        return weighted_mean(info_nce(similarity, 0.3), weights) + log_variance.sum(-1) / 4

    start = torch.tensor([[0.1, -0.2], [0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(objective, (similarity, start))


@pytest.mark.parametrize("softness", [0.1, 1.0, 20.0])
def test_analytic_uncertainty_weights_are_a_softmax_of_inverse_losses(softness):
    similarity = random_similarity(4, 6)
    weights = AnalyticUncertaintyWeights(softness).double()(similarity, 0.2).weights
    expected = shares([1 / ell / softness for ell in direction_losses(similarity, 0.2)])
    assert weights.tolist() == pytest.approx(expected)


def test_dynamic_weight_average_by_its_formula():
    steps = [random_similarity(seed, 5) for seed in range(9)]
    rule = DynamicWeightAverage(2.0, period=2).double()
    weights = [rule(step, 0.2).weights.tolist() for step in steps]
    losses = [direction_losses(step, 0.2) for step in steps]
    averages = [
        [(a + b) / 2 for a, b in zip(*losses[t : t + 2], strict=True)] for t in (0, 2, 4, 6)
    ]
    for step in range(9):
        expected = [1.0, 1.0]
        if step >= 4:
            last, before = averages[step // 2 - 1], averages[step // 2 - 2]
            expected = shares([a / b / 2.0 for a, b in zip(last, before, strict=True)])
        assert weights[step] == pytest.approx(expected), step
    assert max(abs(w[0] - 1) for w in weights[4:]) > 1e-3


def test_dynamic_weight_average_stresses_the_direction_that_falls_slower():
    # The columns' losses fall and the rows' stay, by a hub caption that goes.
    hub = torch.tensor([[0.5, 0.0, 0.9], [0.0, 0.5, 0.9], [0.0, 0.0, 0.9]])
    rule = DynamicWeightAverage(1.0, period=1)
    for similarity in (hub.T, hub):
        rule(similarity, 0.2)
    i2t, t2i = rule(hub, 0.2).weights
    assert i2t > 1 > t2i


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_leading_axes_are_independent_runs(name, leading):
    steps = [
        (random_similarity(seed, 7, leading).float(), torch.full(leading, 0.1)) for seed in range(6)
    ]
    make = SCHEDULERS[name]
    assert_stack_is_its_runs(make(batch_shape=leading), lambda _: make(), steps, leading)


@pytest.mark.parametrize(
    "rule",
    [
        lambda c, **o: CosineTemperature(c / 10, c, 4 * c, **o),
        lambda c, **o: AnalyticUncertaintyWeights(c, **o),
        lambda c, **o: DynamicWeightAverage(c, period=c * 0 + 1, **o),
    ],
)
def test_constants_of_each_run_of_a_stack(rule):
    pair, similarity = torch.tensor([0.5, 2.0]), random_similarity(5, 6).float().expand(2, 6, 6)
    steps = [(scale * similarity, torch.full((2,), 0.2)) for scale in (1.0, 0.7, 0.4)]
    assert_stack_is_its_runs(
        rule(pair, batch_shape=(2,)), lambda place: rule(pair[place].clone()), steps, (2,)
    )


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_permuting_the_batch_leaves_the_schedule(name, seed):
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    plain, permuted = (SCHEDULERS[name]().double() for _ in range(2))
    for step in range(5):
        similarity = random_similarity(seed + step, 6)
        one, other = plain(similarity, 0.2), permuted(similarity[order][:, order], 0.2)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_transposing_exchanges_the_weights(name):
    straight, exchanged = (SCHEDULERS[name]().double() for _ in range(2))
    for seed in range(6):
        similarity = random_similarity(seed, 6)
        one, other = straight(similarity, 0.2), exchanged(similarity.T, 0.2)
    torch.testing.assert_close(one.weights, other.weights.flip(-1))


@pytest.mark.parametrize("name", ["cosine", "analytic", "average"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_weights_sum_to_two_and_stay_finite(name, value):
    rule = SCHEDULERS[name]()
    perfect = 2 * torch.eye(4) - 1
    for similarity in (torch.full((4, 4), value), perfect, random_similarity(0, 4).float()) * 2:
        schedule = rule(similarity.requires_grad_(), 0.01)
        assert all(part.isfinite().all() for part in schedule)
        assert not any(part.requires_grad for part in schedule)
        torch.testing.assert_close(schedule.weights.sum(), torch.tensor(2.0))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_state_is_saved_and_restored(name):
    steps = [(random_similarity(seed, 5).float(), 0.1) for seed in range(8)]
    assert_resumes(SCHEDULERS[name], steps, stop=5)


# GradNorm


def test_gradnorm_by_hand():
    """Two steps of algorithm 1 on ℓ = (3 x, y), whose gradients have the norms 3 and 1."""
    rule = GradNorm(alpha=1.0, step=0.1).double()
    shared = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)

    def losses() -> torch.Tensor:
        return torch.stack([3 * shared[0], shared[1]])

    # G = (3, 1), r = (1, 1), target 2: the first weight falls by 0.1 · 3, the second grows by 0.1.
    assert rule(losses(), [shared]).tolist() == [1.0, 1.0]
    first = [2 * w / (0.7 + 1.1) for w in (0.7, 1.1)]
    assert rule.weights.tolist() == pytest.approx(first)

    # The second loss is halved: the ratios (1, ½) have the mean ¾, r = (4⁄3, ⅔), which turns both
    # steps round: G = (2.33, 1.22), the target 1.78 r = (2.37, 1.19).
    with torch.no_grad():
        shared[1] = 0.5
    assert rule(losses(), [shared]).tolist() == pytest.approx(first)
    moved = [first[0] + 0.1 * 3, first[1] - 0.1 * 1]
    assert rule.weights.tolist() == pytest.approx([2 * w / sum(moved) for w in moved])


def test_gradnorm_step_is_the_gradient_of_its_objective():
    """Against autograd through Σ |G_d − target| with the target held constant."""
    torch.manual_seed(0)
    image, text = (torch.randn(5, 4, dtype=torch.float64) for _ in range(2))
    head = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    rule = GradNorm(alpha=0.7, step=0.01).double()

    def losses() -> torch.Tensor:
        return info_nce((image @ head * scale) @ (text @ head).T, 1.0).mean(-1)

    rule(losses(), [head, scale])
    start, begun = rule.weights.clone(), losses().detach()
    with torch.no_grad():
        head += 0.1
    current = losses()
    rule(current, [head, scale])

    weights = start.clone().requires_grad_()
    norms = []
    for direction in (0, 1):
        gradients = torch.autograd.grad(
            weights[direction] * current[direction], [head, scale], create_graph=True
        )
        norms.append(torch.cat([g.flatten() for g in gradients]).norm())
    ratio = current.detach() / begun
    target = (sum(norms) / 2 * (ratio / ratio.mean()) ** 0.7).detach()
    (torch.stack(norms) - target).abs().sum().backward()
    moved = start - 0.01 * weights.grad
    torch.testing.assert_close(rule.weights, 2 * moved / moved.sum())


def test_gradnorm_brings_the_norms_together():
    rule = GradNorm(alpha=0.0, step=0.01)
    shared = torch.tensor([1.0, 1.0], requires_grad=True)
    for _ in range(150):
        rule(torch.stack([4 * shared[0], shared[1]]), [shared])
    i2t, t2i = rule.weights.tolist()
    assert 4 * i2t == pytest.approx(t2i, rel=0.15)
    assert i2t + t2i == pytest.approx(2)


def test_gradnorm_keeps_the_graph_and_touches_no_gradient():
    rule, shared = GradNorm(), torch.tensor([1.0, 2.0], requires_grad=True)
    losses = torch.stack([3 * shared[0], shared[1] ** 2])
    weights = rule(losses, [shared])
    assert shared.grad is None
    assert not weights.requires_grad
    (weights * losses).sum().backward()
    torch.testing.assert_close(shared.grad, torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_gradnorm_of_a_stack_is_gradnorm_of_each_run(leading):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, *leading, 6, 5, generator=generator)
    head = torch.randn(*leading, 5, 3, generator=generator, requires_grad=True)
    bias = torch.zeros(*leading, 1, 3, requires_grad=True)

    def losses(image, text, head, bias):
        return info_nce((image @ head + bias) @ (text @ head).mT, 1.0).mean(-1)

    stacked = GradNorm(batch_shape=leading)
    for image, text in (features[:2], features[2:]):
        stacked(losses(image, text, head, bias), [head, bias])
    for place in itertools.product(*map(range, leading)):
        alone = GradNorm()
        own = [part[place].detach().requires_grad_() for part in (head, bias)]
        for image, text in (features[:2], features[2:]):
            alone(losses(image[place], text[place], *own), own)
        torch.testing.assert_close(stacked.weights[place], alone.weights)
        assert (alone.weights - 1).abs().max() > 1e-4


def test_gradnorm_weights_stay_positive_and_gradients_may_vanish():
    rule, shared = GradNorm(step=10.0), torch.tensor([1.0, 1.0], requires_grad=True)
    for scale in (5.0, 5.0, 0.0):
        rule(torch.stack([scale * shared[0], scale / 5 * shared[1]]), [shared])
        assert (rule.weights > 0).all()
        torch.testing.assert_close(rule.weights.sum(), torch.tensor(2.0))


def test_gradnorm_state_is_saved_and_restored():
    shared = torch.tensor([1.0, 1.0], requires_grad=True)
    first, second = GradNorm(), GradNorm()
    first(torch.stack([3 * shared[0], shared[1]]), [shared])
    second.load_state_dict(first.state_dict())
    for rule in (first, second):
        rule(torch.stack([2 * shared[0], shared[1]]), [shared])
    assert torch.equal(first.weights, second.weights)
    assert not torch.equal(first.weights, GradNorm().weights)


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineTemperature(0.0, 0.1, 3), "low must be positive"),
        (lambda: CosineTemperature(0.2, 0.1, 3), "high must be finite and not under low"),
        (lambda: CosineTemperature(0.1, 0.2, 0), "period must be a positive"),
        (lambda: AnalyticUncertaintyWeights(0.0), "softness must be positive"),
        (lambda: DynamicWeightAverage(-1.0, period=2), "softness must be positive"),
        (lambda: DynamicWeightAverage(1.0, period=0), "period must be a count"),
        (lambda: GradNorm(alpha=-0.1), "alpha must be 0 or more"),
        (lambda: GradNorm(step=float("nan")), "step must be positive"),
        (lambda: IndividualTemperatures(1, 0.1, 1.0), "count, the number of training pairs"),
        (lambda: IndividualTemperatures(9, 2.0, 1.0), "start must be within the bounds"),
        (lambda: IndividualTemperatures(9, 0.1, 0.0), "rho must be positive"),
        (lambda: IndividualTemperatures(9, 0.1, 1.0, gamma=0.0), "gamma must be in"),
        (lambda: IndividualTemperatures(9, 0.1, 1.0, beta=1.5), "beta must be in"),
        (lambda: IndividualTemperatures(9, 0.1, 1.0, bounds=(0.2, 0.1)), "bounds must be"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 1), "single pair"), ((2, 3), r"\(2, 3\)"), ((2, 4, 4), "batch_sha")],
)
def test_bad_similarities_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        SCHEDULERS[name]()(torch.zeros(shape), 0.1)


def test_gradnorm_refuses_another_stack():
    shared = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="losses has leading axes"):
        GradNorm(batch_shape=(3,))(torch.stack([shared, shared], dim=-1), [shared])
    with pytest.raises(ValueError, match="a parameter has leading axes"):
        GradNorm(batch_shape=(2,))(torch.stack([shared, shared], dim=-1), [torch.ones(3, 2)])
