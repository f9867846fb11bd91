"""The contrastive loss against hand-worked values, torch's cross-entropy, and finite gradients."""

import math
import re

import pytest
import torch
from similarities import extreme, random_similarity
from torch.nn import functional as F

from lib.losses import (
    LOSSES,
    contrastive_loss,
    decoupled,
    hardest_negatives,
    info_nce,
    label_smoothing,
    multi_positive,
    rince,
    sigmoid,
    weighted_mean,
)
from lib.schedulers import SIGNALS, Fixed, Schedule, Scheduler
from lib.schedulers.actuators import ACTUATORS

TAU = 0.25


def group_of(size: int) -> torch.Tensor:
    """Pairs 0 and 1 of one image, 2 and 3 of another, and so on."""
    return torch.arange(size) // 2


def both_directions(similarity: torch.Tensor, query) -> torch.Tensor:
    """Apply a rule of one query, (candidates as floats, place of the pair), in plain Python."""
    return torch.tensor(
        [
            [query(row.tolist(), place) for place, row in enumerate(matrix)]
            for matrix in (similarity, similarity.T)
        ],
        dtype=torch.float64,
    )


def test_info_nce_by_hand():
    losses = info_nce(torch.tensor([[0.2, 0.1], [0.0, 0.1]]), 0.1)
    # Logits [[2, 1], [0, 1]]: rows log(1 + e^-1) twice; columns log(1 + e^-2) and log 2.
    row = math.log1p(math.exp(-1))
    expected = torch.tensor([[row, row], [math.log1p(math.exp(-2)), math.log(2)]])
    torch.testing.assert_close(losses, expected)


def test_info_nce_is_cross_entropy_in_both_directions():
    similarity = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0))
    tau = torch.tensor([0.05, 0.1, 0.5])
    losses = info_nce(similarity, tau)
    labels = torch.arange(9)
    for run in range(3):
        logits = similarity[run] / tau[run]
        for direction, matrix in enumerate((logits, logits.T)):
            expected = F.cross_entropy(matrix, labels, reduction="none")
            torch.testing.assert_close(losses[run, direction], expected)


def test_fixed_schedule_gives_the_symmetric_loss_of_clip():
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    logits = similarity / 0.2
    clip = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(similarity, Fixed()(similarity, 0.2)), clip)


def test_weights_combine_as_stated():
    losses = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    schedule = Schedule(
        weights=torch.tensor([1.5, 0.5]),
        sample_weights=torch.tensor([[0.5, 1.5], [1.0, 1.0]]),
        temperature=torch.tensor(0.1),
    )
    # ½ · (1.5 · mean(0.5, 4.5) + 0.5 · mean(2, 6)) = ½ · (3.75 + 2)
    torch.testing.assert_close(weighted_mean(losses, schedule), torch.tensor(2.875))


def test_a_perfect_model_reaches_the_minimum():
    similarity = 2 * torch.eye(8) - 1
    loss = contrastive_loss(similarity, Fixed()(similarity, 0.01))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_two_images_with_one_caption_share_the_probability_and_no_more():
    """The captions tie: neither image can do better than log 2, and nothing diverges."""
    similarity = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    losses = info_nce(similarity, 0.01)
    expected = torch.tensor([math.log(2), math.log(2), 0.0])
    torch.testing.assert_close(losses, expected.expand(2, 3))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("actuator", ACTUATORS)
@pytest.mark.parametrize("size", [2, 3, 9])
@pytest.mark.parametrize("kind", ["equal", "equal negatives", "identity", "opposite"])
def test_loss_and_gradients_stay_finite(signal, actuator, size, kind):
    similarity = {
        "equal": torch.full((size, size), 0.3),
        "equal negatives": 0.5 * torch.eye(size) + 0.1,
        "identity": torch.eye(size),
        "opposite": 1 - 2 * torch.eye(size),
    }[kind].requires_grad_()
    scheduler = Scheduler(signal, actuator)
    loss = contrastive_loss(similarity, scheduler(similarity, 0.1))
    loss.backward()
    assert loss.isfinite()
    assert similarity.grad.isfinite().all()


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
def test_label_smoothing_is_that_of_torch(epsilon):
    similarity = random_similarity(2, 7)
    losses = label_smoothing(similarity, TAU, epsilon)
    labels = torch.arange(7)
    for direction, logits in enumerate((similarity / TAU, similarity.T / TAU)):
        expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=epsilon)
        torch.testing.assert_close(losses[direction], expected)


def test_decoupled_leaves_the_pair_out_of_the_denominator():
    def query(scores, place):
        others = [math.exp(s / TAU) for j, s in enumerate(scores) if j != place]
        return -scores[place] / TAU + math.log(sum(others))

    similarity = random_similarity(3, 6)
    torch.testing.assert_close(decoupled(similarity, TAU), both_directions(similarity, query))


def test_the_gradient_of_decoupled_on_the_pair_is_not_damped():
    """InfoNCE's is multiplied by 1 − p_ii (the negative–positive coupling), this one's is 1 / τ."""
    similarity = random_similarity(4, 5).requires_grad_()
    decoupled(similarity, TAU)[0].sum().backward()
    torch.testing.assert_close(
        similarity.grad.diagonal(), torch.full((5,), -1 / TAU, dtype=torch.float64)
    )


def test_hardest_negatives_is_the_maximum_of_hinges():
    def query(scores, place):
        hinges = [max(0, 0.2 + s - scores[place]) for j, s in enumerate(scores) if j != place]
        return max(hinges)

    similarity = random_similarity(5, 6)
    losses = hardest_negatives(similarity, TAU, 0.2)
    torch.testing.assert_close(losses, both_directions(similarity, query))
    assert (losses > 0).any()
    assert (hardest_negatives(torch.eye(4), TAU, 0.9) == 0).all()


def test_sigmoid_is_algorithm_1_of_siglip():
    similarity = random_similarity(6, 5)
    # The paper's pseudo-code, image and text embeddings already multiplied.
    logits = similarity * (1 / TAU) + -3.0
    labels = 2 * torch.eye(5) - torch.ones(5, 5)
    expected = -torch.sum(F.logsigmoid(labels * logits)) / 5
    i2t, t2i = sigmoid(similarity, TAU, -3.0).mean(dim=-1)
    torch.testing.assert_close(i2t, expected)
    torch.testing.assert_close(t2i, expected)


def test_sigmoid_has_no_directions():
    """The directions' means and their gradients are equal, so that weights do nothing."""
    gradients = []
    for weight in (0.0, 1.0, 1.7):
        similarity = random_similarity(7, 6).requires_grad_()
        schedule = Schedule(torch.tensor([weight, 2 - weight]), torch.ones(2, 6), torch.tensor(TAU))
        weighted_mean(sigmoid(similarity, TAU, -3.0), schedule).backward()
        gradients.append(similarity.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[2], gradients[1])


def test_the_log_odds_of_a_pair_are_the_best_bias_of_an_untrained_model():
    bias = torch.tensor(-math.log(7), dtype=torch.float64, requires_grad=True)
    sigmoid(torch.zeros(8, 8, dtype=torch.float64), TAU, bias).mean().backward()
    assert bias.grad.item() == pytest.approx(0, abs=1e-12)


def test_multi_positive_is_cross_entropy_with_shared_targets():
    similarity, group = random_similarity(8, 5), torch.tensor([3, 1, 3, 3, 0])
    losses = multi_positive(similarity, TAU, group=group)
    shared = [1 / 3, 0, 1 / 3, 1 / 3, 0]
    rows = [shared, [0, 1, 0, 0, 0], shared, shared, [0, 0, 0, 0, 1]]
    target = torch.tensor(rows, dtype=torch.float64)
    for direction, matrix in enumerate((similarity, similarity.T)):
        expected = F.cross_entropy(matrix / TAU, target, reduction="none")
        torch.testing.assert_close(losses[direction], expected)


def test_each_run_of_a_stack_may_have_groups_of_its_own():
    similarity = random_similarity(9, 5, (4, 2))
    group = torch.randint(0, 3, (4, 2, 5), generator=torch.Generator().manual_seed(0))
    together = multi_positive(similarity, TAU, group=group)
    for place in ((i, j) for i in range(4) for j in range(2)):
        alone = multi_positive(similarity[place], TAU, group=group[place])
        torch.testing.assert_close(together[place], alone)


def test_multi_positive_without_shared_groups_is_info_nce():
    similarity = random_similarity(9, 6)
    losses = multi_positive(similarity, TAU, group=torch.arange(6).flip(0))
    torch.testing.assert_close(losses, info_nce(similarity, TAU))


@pytest.mark.parametrize("q", [0.1, 0.5, 1.0])
def test_rince_by_the_authors_formula(q):
    def query(scores, place):
        exponents = [math.exp(s / TAU) for s in scores]
        return -(exponents[place] ** q) / q + (0.025 * sum(exponents)) ** q / q

    similarity = random_similarity(10, 6)
    losses = rince(similarity, TAU, q, density=0.025)
    torch.testing.assert_close(losses, both_directions(similarity, query))


def test_rince_runs_from_info_nce_to_a_symmetric_loss():
    similarity = random_similarity(11, 6)
    limit = info_nce(similarity, TAU) + math.log(0.01)
    torch.testing.assert_close(rince(similarity, TAU, 1e-9), limit, rtol=1e-6, atol=1e-6)

    def at_one(scores, place):
        negatives = sum(math.exp(s / TAU) for j, s in enumerate(scores) if j != place)
        return -(1 - 0.01) * math.exp(scores[place] / TAU) + 0.01 * negatives

    torch.testing.assert_close(rince(similarity, TAU, 1.0), both_directions(similarity, at_one))


def test_rince_pulls_less_on_a_pair_that_does_not_match():
    """InfoNCE's greatest gradient is on the worst pair: a wrong caption. RINCE's is not."""
    similarity = random_similarity(12, 6)
    similarity.diagonal().copy_(torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, -0.9]))
    pulls = []
    for loss in (info_nce(similarity.requires_grad_(), TAU), rince(similarity, TAU, 1.0)):
        (gradient,) = torch.autograd.grad(loss[0].sum(), similarity, retain_graph=True)
        pulls.append(gradient.diagonal().abs().argmax().item())
    assert pulls == [5, 0]


def call(name: str, similarity, tau=TAU, constant=None):
    group = group_of(similarity.shape[-1]) if LOSSES[name].grouped else None
    return LOSSES[name](similarity, tau, constant, group=group)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.constant])
def test_a_constant_is_handed_on_and_else_is_that_of_the_paper(name):
    similarity, loss = random_similarity(13, 6), LOSSES[name]
    given = loss(similarity, TAU, 0.7)
    torch.testing.assert_close(given, loss.function(similarity, TAU, 0.7))
    torch.testing.assert_close(loss(similarity, TAU), loss.function(similarity, TAU, loss.default))
    assert not torch.allclose(given, loss(similarity, TAU))


@pytest.mark.parametrize("name", LOSSES)
def test_numbers_are_taken_in_the_precision_of_the_similarities(name):
    """0.1 in single precision is another number; and a run's own τ must not widen the loss."""
    similarity = random_similarity(13, 6, (2,))
    constant = 0.7 if LOSSES[name].constant else None
    exact = None if constant is None else torch.tensor(constant, dtype=torch.float64)
    found = call(name, similarity, 0.1, constant)
    expected = call(name, similarity, torch.tensor(0.1, dtype=torch.float64), exact)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    taus = torch.tensor([0.1, 0.2], dtype=torch.float64)
    constants = None if constant is None else taus
    assert call(name, similarity.float(), taus, constants).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_transposing_exchanges_the_directions(name):
    similarity = random_similarity(13, 6)
    torch.testing.assert_close(call(name, similarity.T), call(name, similarity).flip(0))


@pytest.mark.parametrize("name", LOSSES)
def test_permuting_the_batch_permutes_the_queries(name):
    similarity, order = random_similarity(14, 6), torch.tensor([3, 0, 5, 1, 2, 4])
    group = {"group": group_of(6)[order]} if LOSSES[name].grouped else {}
    permuted = LOSSES[name](similarity[order][:, order], TAU, **group)
    torch.testing.assert_close(permuted, call(name, similarity)[:, order])


@pytest.mark.parametrize("size", [2, 7, 16])
@pytest.mark.parametrize("name", LOSSES)
def test_leading_axes_are_independent_runs(name, size):
    similarity = random_similarity(15, size, (2, 3)).float()
    taus = torch.linspace(0.1, 0.6, 6).view(2, 3)
    constants = None
    if LOSSES[name].constant is not None:
        constants = taus + (-3 if name == "sigmoid" else 0)
    together = call(name, similarity, taus, constants)
    for place in ((i, j) for i in range(2) for j in range(3)):
        constant = None if constants is None else constants[place].item()
        alone = call(name, similarity[place], taus[place].item(), constant)
        assert torch.equal(together[place], alone)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_under_vmap(name):
    similarity = random_similarity(16, 6, (4,))
    mapped = torch.func.vmap(lambda one: call(name, one))(similarity)
    torch.testing.assert_close(mapped, call(name, similarity))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name):
    similarity = random_similarity(17, 5, (2,)).requires_grad_()
    tau = torch.tensor([0.3, 0.5], dtype=torch.float64, requires_grad=True)
    constant = None
    if LOSSES[name].constant is not None:
        constant = torch.tensor([0.2, 0.4], dtype=torch.float64, requires_grad=True)
    inputs = [x for x in (similarity, tau, constant) if x is not None]
    assert torch.autograd.gradcheck(lambda s, t, c=None: call(name, s, t, c), inputs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [2, 9])
@pytest.mark.parametrize("tau", [0.02, 1.0])
@pytest.mark.parametrize("kind", ["equal", "identity", "opposite"])
def test_every_loss_and_gradient_stays_finite(name, size, tau, kind):
    similarity = extreme(kind, size).requires_grad_()
    losses = call(name, similarity, tau)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert similarity.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_single_pair_is_refused(name):
    with pytest.raises(ValueError, match="single pair"):
        call(name, torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("name", "constant", "message"),
    [
        ("label_smoothing", 1.5, "epsilon of the loss label_smoothing {} (0, 1]; it is 1.5"),
        ("hardest_negatives", 0.0, "margin of the loss hardest_negatives {} (0, ∞); it is 0.0"),
        ("sigmoid", math.inf, "bias of the loss sigmoid {} (-∞, ∞); it is inf"),
        ("rince", torch.tensor([1, 0]), "q of the loss rince {} (0, 1]; it is tensor([1, 0])"),
        ("decoupled", 0.1, "the loss decoupled has no constant; it was given 0.1"),
    ],
)
def test_bad_constants_are_named(name, constant, message):
    said = message.format("must be finite and in")
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        LOSSES[name].check(constant)


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_and_the_greatest_constants_are_allowed(name):
    LOSSES[name].check(LOSSES[name].default)
    if name in ("label_smoothing", "rince"):
        LOSSES[name].check(1.0)
        LOSSES[name].check(torch.tensor([0.5, 1.0]))


def test_a_grouped_loss_needs_its_groups():
    with pytest.raises(ValueError, match="needs group"):
        LOSSES["multi_positive"](torch.eye(3), 0.1)


@pytest.mark.tries("bad number")
@pytest.mark.parametrize(
    ("loss", "constant", "said"),
    [
        (label_smoothing, 1.01, "epsilon must be in [0, 1]; it is 1.01"),
        (label_smoothing, -0.01, "epsilon must be in [0, 1]; it is -0.01"),
        (label_smoothing, math.nan, "epsilon must be in [0, 1]; it is nan"),
        (hardest_negatives, 0.0, "margin must be positive and finite; it is 0.0"),
        (hardest_negatives, math.inf, "margin must be positive and finite; it is inf"),
        (sigmoid, -math.inf, "bias must be finite; it is -inf"),
        (sigmoid, math.nan, "bias must be finite; it is nan"),
        (rince, 0.0, "q must be in (0, 1]; it is 0.0"),
        (rince, 1.5, "q must be in (0, 1]; it is 1.5"),
        (lambda s, t, c: rince(s, t, 0.5, c), 0.0, "density must be in (0, 1]; it is 0.0"),
        (lambda s, t, c: rince(s, t, 0.5, c), 2.0, "density must be in (0, 1]; it is 2.0"),
        (lambda s, t, c: info_nce(s, c), 0.0, "temperature must be positive and finite; it is 0.0"),
    ],
)
def test_constants_out_of_range_are_named(loss, constant, said):
    for given in (constant, torch.tensor(constant, dtype=torch.float64)):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            loss(torch.eye(3), 0.1, given)


def test_constants_at_the_edge_are_taken():
    similarity = random_similarity(18, 4)
    torch.testing.assert_close(label_smoothing(similarity, TAU, 0.0), info_nce(similarity, TAU))
    for losses in (
        label_smoothing(similarity, TAU, 1.0),
        rince(similarity, TAU, 1.0, density=1.0),
        sigmoid(similarity, TAU, 0.0),
        hardest_negatives(similarity, TAU, 1e-9),
    ):
        assert losses.isfinite().all()
