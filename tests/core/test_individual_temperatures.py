"""iSogCLR against its algorithm in plain Python, autograd, and the robust problem it solves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from similarities import assert_resumes, assert_stack_is_its_runs, extreme, random_similarity

from lib.losses import decoupled, info_nce
from lib.rivals import IndividualTemperatures

CONSTANTS = {"rho": 0.6, "step": 0.02, "gamma": 0.7, "beta": 0.8, "bounds": (0.05, 0.5)}


class Reference:
    """The algorithm's lines for one direction, a query at a time, with s and not its logarithm."""

    def __init__(self, count, start, rho, step, gamma, beta, bounds):
        self.tau, self.u, self.s = [start] * count, [0.0] * count, [None] * count
        self.constants = rho, step, gamma, beta, *bounds

    def query(self, scores, pair, place):
        """Return p_j of each candidate and the objective; move the pair's temperature."""
        rho, step, gamma, beta, low, high = self.constants
        tau, gaps = self.tau[pair], [score - scores[place] for score in scores]
        others = [j for j in range(len(scores)) if j != place]
        g = sum(math.exp(gaps[j] / tau) for j in others) / len(others)
        s = g if self.s[pair] is None else (1 - gamma) * self.s[pair] + gamma * g
        p = [0.0] * len(scores)
        for j in others:
            p[j] = math.exp(gaps[j] / tau) / s / len(others)
        gradient = math.log(s) + rho - sum(p[j] * gaps[j] / tau for j in others)
        self.s[pair] = s
        self.u[pair] = (1 - beta) * self.u[pair] + beta * gradient
        self.tau[pair] = min(max(tau - step * self.u[pair], low), high)
        return p, tau * (math.log(s) + rho)


BATCHES = [[0, 1, 2, 3], [4, 2, 5, 0], [3, 0, 1, 5], [2, 4, 0, 1], [0, 5, 2, 3]]


def test_five_steps_by_the_algorithm():
    rule = IndividualTemperatures(6, 0.1, **CONSTANTS).double()
    references = [Reference(6, 0.1, **CONSTANTS) for _ in range(2)]
    for seed, batch in enumerate(BATCHES):
        similarity = random_similarity(seed, 4).requires_grad_()
        losses = rule(similarity, torch.tensor(batch))
        losses.sum().backward()
        expected_gradient = torch.zeros(4, 4, dtype=torch.float64)
        for direction, reference in enumerate(references):
            matrix = similarity.detach() if direction == 0 else similarity.detach().T
            gradient = torch.zeros(4, 4, dtype=torch.float64)
            for place, pair in enumerate(batch):
                p, value = reference.query(matrix[place].tolist(), pair, place)
                assert losses[direction, place].item() == pytest.approx(value)
                gradient[place] = torch.tensor(p)
                gradient[place, place] = -sum(p)
            expected_gradient += gradient if direction == 0 else gradient.T
        torch.testing.assert_close(similarity.grad, expected_gradient)
        for direction, reference in enumerate(references):
            assert rule.temperature[direction].tolist() == pytest.approx(reference.tau)
    moved = (rule.temperature - 0.1).abs()
    assert moved.min() > 1e-4


def test_its_gradients_are_those_of_the_objective_where_the_mean_does_not_run():
    """γ = 1: of τ log mean exp(h / τ) + τ ρ in the similarities, and in the temperature."""
    rule = IndividualTemperatures(5, 0.2, 0.6, gamma=1.0, beta=1.0, step=0.01).double()
    similarity = random_similarity(3, 5).requires_grad_()
    tau = torch.full((2, 5), 0.2, dtype=torch.float64, requires_grad=True)
    matrices = torch.stack([similarity, similarity.T])
    gaps = matrices - matrices.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    negatives = gaps[:, ~torch.eye(5, dtype=torch.bool)].view(2, 5, 4)
    objective = tau * (torch.exp(negatives / tau.unsqueeze(-1)).mean(-1).log() + 0.6)
    expected = torch.autograd.grad(objective.sum(), (similarity, tau))
    losses = rule(similarity, torch.arange(5))
    torch.testing.assert_close(losses, objective)
    (gradient,) = torch.autograd.grad(losses.sum(), similarity)
    torch.testing.assert_close(gradient, expected[0])
    torch.testing.assert_close(rule.temperature, (tau - 0.01 * expected[1]).detach())


def test_a_temperature_settles_where_the_divergence_of_its_negatives_is_rho():
    """And the loss is then the worst mean of h within that divergence: the dual problem."""
    rule = IndividualTemperatures(6, 0.3, 0.4, gamma=1.0, step=0.1).double()
    similarity = random_similarity(5, 6)
    for _ in range(150):
        losses = rule(similarity, torch.arange(6))
    tau = rule.temperature[0, 2]
    gaps = torch.cat([similarity[2, :2], similarity[2, 3:]]) - similarity[2, 2]
    p = torch.softmax(gaps / tau, dim=0)
    divergence = (p * (5 * p).log()).sum()
    assert divergence.item() == pytest.approx(0.4, abs=1e-6)
    assert losses[0, 2].item() == pytest.approx((p * gaps).sum().item(), abs=1e-6)


def test_every_temperature_falls_to_its_bound_under_a_divergence_that_cannot_be_reached():
    rule = IndividualTemperatures(
        4, 0.1, math.log(3) + 0.1, step=0.1, gamma=1.0, bounds=(0.02, 1.0)
    )
    for _ in range(20):
        rule(random_similarity(0, 4).float(), torch.arange(4))
    torch.testing.assert_close(rule.temperature, torch.full((2, 4), 0.02))


def test_only_the_pairs_of_the_batch_move():
    rule = IndividualTemperatures(7, 0.1, 0.6)
    rule(random_similarity(1, 3).float(), torch.tensor([5, 0, 3]))
    still = torch.tensor([1, 2, 4, 6])
    assert (rule.temperature[:, still] == 0.1).all()
    assert (rule.temperature[:, [5, 0, 3]] != 0.1).all()


def test_its_gradient_is_that_of_the_decoupled_loss_times_the_temperature():
    """At one temperature and with no history the direction of descent is DCL's."""
    similarity = random_similarity(2, 5).requires_grad_()
    rule = IndividualTemperatures(5, 0.2, 0.6).double()
    (own,) = torch.autograd.grad(rule(similarity, torch.arange(5)).sum(), similarity)
    (other,) = torch.autograd.grad(decoupled(similarity, 0.2).sum(), similarity)
    torch.testing.assert_close(own, 0.2 * other)
    (info,) = torch.autograd.grad(info_nce(similarity, 0.2).sum(), similarity)
    assert not torch.allclose(own, 0.2 * info)


@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_leading_axes_are_independent_runs(leading):
    generator = torch.Generator().manual_seed(0)
    rhos = torch.rand(leading, generator=generator) + 0.1
    options = {name: value for name, value in CONSTANTS.items() if name != "rho"}
    stacked = IndividualTemperatures(6, 0.1, rhos, batch_shape=leading, **options)
    steps = []
    for seed in range(4):
        orders = [torch.randperm(6, generator=generator)[:4] for _ in range(math.prod(leading))]
        orders = torch.stack(orders).view(*leading, 4)
        steps.append((random_similarity(seed, 4, leading).float(), orders))
    assert_stack_is_its_runs(
        stacked,
        lambda place: IndividualTemperatures(6, 0.1, rhos[place].item(), **options),
        steps,
        leading,
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_permuting_the_batch_permutes_the_queries(seed):
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    plain, permuted = (IndividualTemperatures(6, 0.1, **CONSTANTS).double() for _ in range(2))
    for step, batch in enumerate(BATCHES):
        similarity, index = random_similarity(seed + step, 4), torch.tensor(batch)
        one = plain(similarity, index)
        other = permuted(similarity[order][:, order], index[order])
    torch.testing.assert_close(one[:, order], other)
    torch.testing.assert_close(plain.temperature, permuted.temperature)


def test_transposing_exchanges_the_directions():
    straight, exchanged = (IndividualTemperatures(6, 0.1, **CONSTANTS).double() for _ in range(2))
    for seed, batch in enumerate(BATCHES):
        similarity, index = random_similarity(seed, 4), torch.tensor(batch)
        one, other = straight(similarity, index), exchanged(similarity.T, index)
    torch.testing.assert_close(one, other.flip(0))
    torch.testing.assert_close(straight.temperature, exchanged.temperature.flip(0))


def test_state_is_saved_and_restored():
    steps = [(random_similarity(i, 4).float(), torch.tensor(b)) for i, b in enumerate(BATCHES)]
    assert_resumes(lambda: IndividualTemperatures(6, 0.1, **CONSTANTS), steps, stop=3)


@pytest.mark.parametrize("size", [2, 9])
@pytest.mark.parametrize("kind", ["equal", "identity", "opposite"])
def test_losses_and_gradients_stay_finite(size, kind):
    similarity = extreme(kind, size).requires_grad_()
    rule = IndividualTemperatures(size, 0.005, 0.5)
    # A stale mean: of the opposite batch, e^±400 away.
    rule(-similarity.detach(), torch.arange(size))
    losses = rule(similarity, torch.arange(size))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert similarity.grad.isfinite().all()
    assert rule.temperature.isfinite().all()


def test_bad_batches_are_refused():
    rule = IndividualTemperatures(5, 0.1, 0.5)
    with pytest.raises(ValueError, match="single pair"):
        rule(torch.zeros(1, 1), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"index must be \(..., B\) = \(4,\).* it is \(3,\)"):
        rule(torch.zeros(4, 4), torch.arange(3))
    with pytest.raises(ValueError, match="batch_shape"):
        rule(torch.zeros(2, 4, 4), torch.arange(4).expand(2, 4))
