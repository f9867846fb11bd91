"""The signals and actuators: worked values, and the identities that the book proves."""

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from similarities import assert_resumes, assert_stack_is_its_runs, random_similarity

from lib.schedulers import (
    ACTUATORS,
    SIGNALS,
    Fixed,
    Scheduler,
    Signal,
    Trace,
    entropy,
    margin,
    mean_variances,
    spread,
    variance,
)
from lib.schedulers._checks import is_traced
from lib.schedulers.actuators import powers
from lib.schedulers.signals import mean_variances_on_host, temperature_at_entropy

TAU = torch.tensor(0.1)
KINDS = [(signal, actuator) for signal in SIGNALS for actuator in ACTUATORS]


squares = st.builds(random_similarity, st.integers(0, 10**6), st.integers(2, 12))


def test_signals_by_hand():
    similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    # Rows: {.8, 0} and {.4, .2}; columns: {.8, .4} and {0, .2}.
    torch.testing.assert_close(
        variance(similarity, TAU), torch.tensor([[0.16, 0.01], [0.04, 0.01]])
    )
    torch.testing.assert_close(spread(similarity, TAU), torch.tensor([[0.8, 0.2], [0.4, 0.2]]))
    torch.testing.assert_close(margin(similarity, TAU), torch.tensor([[0.8, -0.2], [0.4, 0.2]]))

    def binary_entropy(logit_difference: float) -> float:
        p = 1 / (1 + math.exp(-logit_difference))
        return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)

    expected = [[binary_entropy(8), binary_entropy(2)], [binary_entropy(4), binary_entropy(2)]]
    torch.testing.assert_close(entropy(similarity, TAU), torch.tensor(expected))


def test_margin_is_over_the_mean_of_the_negatives():
    similarity = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.8, 0.0], [0.2, 0.4, 0.6]])
    expected = [[0.9 - 0.2, 0.8 - 0.25, 0.6 - 0.3], [0.9 - 0.35, 0.8 - 0.25, 0.6 - 0.15]]
    torch.testing.assert_close(margin(similarity, TAU), torch.tensor(expected))


@pytest.mark.parametrize("read", [*SIGNALS.values(), margin])
@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_a_signal_of_a_stack_is_that_of_each_run(read, leading):
    similarity = random_similarity(4, 5, leading)
    temperature = torch.linspace(0.1, 0.6, math.prod(leading)).double().view(leading)
    together = read(similarity, temperature)
    for place in itertools.product(*map(range, leading)):
        torch.testing.assert_close(together[place], read(similarity[place], temperature[place]))


@given(squares)
def test_mean_margin_gives_no_signal_between_directions(similarity):
    mean = margin(similarity, TAU.double()).mean(-1)
    torch.testing.assert_close(mean[0], mean[1])


@given(squares)
def test_variance_of_the_whole_matrix_or_its_diagonal_gives_no_signal(similarity):
    transposed = similarity.T
    torch.testing.assert_close(similarity.var(correction=0), transposed.var(correction=0))
    assert torch.equal(similarity.diagonal(), transposed.diagonal())


@given(squares)
def test_direction_signal_is_a_difference_in_hubness(similarity):
    """Law of total variance: row − column variance = Var(column means) − Var(row means)."""
    i2t, t2i = variance(similarity, TAU.double()).mean(-1)
    hubness = similarity.mean(0).var(correction=0) - similarity.mean(1).var(correction=0)
    torch.testing.assert_close(i2t - t2i, hubness, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("signal", SIGNALS)
@given(squares)
def test_transposing_exchanges_the_directions(signal, similarity):
    one, other = (SIGNALS[signal](matrix, TAU.double()) for matrix in (similarity, similarity.T))
    torch.testing.assert_close(other, one.flip(0))


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
@given(similarity=squares)
def test_transposing_exchanges_the_weights(signal, actuator, similarity):
    straight, exchanged = (Scheduler(signal, actuator, gamma=2.0).double() for _ in range(2))
    for step in (similarity, similarity.flip(0)):
        one, other = straight(step, 0.1), exchanged(step.T, 0.1)
    torch.testing.assert_close(one.weights, other.weights.flip(-1))
    torch.testing.assert_close(one.sample_weights, other.sample_weights.flip(-2))
    torch.testing.assert_close(one.temperature, other.temperature)


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
@given(similarity=squares, seed=st.integers(0, 1000))
def test_permuting_the_batch_permutes_queries_and_leaves_weights(
    signal, actuator, similarity, seed
):
    size = similarity.shape[0]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    plain = Scheduler(signal, actuator).double()(similarity, 0.1)
    permuted = Scheduler(signal, actuator).double()(similarity[order][:, order], 0.1)
    torch.testing.assert_close(plain.weights, permuted.weights)
    torch.testing.assert_close(plain.sample_weights[:, order], permuted.sample_weights)
    torch.testing.assert_close(plain.temperature, permuted.temperature)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("actuator", ["direction", "magnitude", "sample"])
@pytest.mark.parametrize("gamma", [-10.0, -1.0, 0.5, 1.0, 10.0])
def test_a_uniform_signal_gives_weights_of_exactly_one(signal, actuator, gamma):
    # Every row and every column holds the same values: a circulant matrix.
    row = torch.tensor([0.9, 0.5, 0.25, 0.125])
    similarity = torch.stack([row.roll(shift) for shift in range(4)])
    scheduler = Scheduler(signal, actuator, gamma=gamma)
    for _ in range(3):
        schedule = scheduler(similarity, 0.1)
    torch.testing.assert_close(schedule.weights, torch.ones(2))
    torch.testing.assert_close(schedule.sample_weights, torch.ones(2, 4))


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
@given(similarity=squares, gamma=st.sampled_from([-3.0, 1.0, 4.0]))
def test_the_budget_of_the_loss_is_kept(signal, actuator, similarity, gamma):
    schedule = Scheduler(signal, actuator, gamma=gamma).double()(similarity, 0.1)
    if actuator == "direction":
        torch.testing.assert_close(schedule.weights.sum(), torch.tensor(2.0).double())
    torch.testing.assert_close(schedule.sample_weights.mean(-1), torch.ones(2).double())
    assert (schedule.weights >= 0).all()
    assert schedule.temperature > 0


def test_direction_weights_by_hand():
    # Mean row variance 0.25, mean column variance 0; then the transposed batch.
    hub = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scheduler = Scheduler("variance", "direction", beta=0.5)
    torch.testing.assert_close(scheduler(hub, 0.1).weights, torch.tensor([2.0, 0.0]))
    # ū: i2t (0.5·0.125 + 0.5·0)/0.75 = 1/12, t2i (0.5·0.25)/0.75 = 2/12, bias-corrected.
    torch.testing.assert_close(scheduler(hub.T, 0.1).weights, torch.tensor([2 / 3, 4 / 3]))


def test_smoothing_is_bias_corrected_as_in_adam():
    scheduler = Scheduler("spread", "magnitude", beta=0.9, bounds=(0.1, 10.0))
    for scale in (0.2, 0.4):
        schedule = scheduler(scale * torch.eye(2), 0.1)
    # ū_0 = 0.2; ū = (0.9·0.1·0.2 + 0.1·0.4) / (1 − 0.81) = 0.058 / 0.19.
    torch.testing.assert_close(schedule.weights, torch.full((2,), 0.058 / 0.19 / 0.2))


def test_magnitude_is_clipped_and_follows_its_reference_after_the_warm_up():
    scheduler = Scheduler("spread", "magnitude", beta=0.0, warmup=2, bounds=(0.5, 2.0))
    weights = [scheduler(s * torch.eye(2), 0.1).weights[0].item() for s in (9, 1, 1.5, 3, 0.1)]
    assert weights == pytest.approx([1, 1, 1.5, 2, 0.5])


def test_sharpness_by_variance_holds_the_logits_standard_deviation():
    similarity = random_similarity(0, 16)
    schedule = Scheduler("variance", "sharpness", target=1.5).double()(similarity, 0.1)
    logits = similarity / schedule.temperature
    assert logits.std(correction=0).item() == pytest.approx(1.5)


def test_sharpness_by_spread_holds_the_mean_logit_range():
    similarity = random_similarity(1, 16)
    schedule = Scheduler("spread", "sharpness", target=8.0).double()(similarity, 0.1)
    assert spread(similarity / schedule.temperature, TAU).mean().item() == pytest.approx(8.0)


@given(
    st.integers(0, 10**6), st.integers(3, 40), st.floats(0.3, 0.98), st.sampled_from([0.02, 0.1, 1])
)
def test_sharpness_by_entropy_holds_the_mean_entropy(seed, size, target, start):
    similarity = random_similarity(seed, size)
    tau = temperature_at_entropy(
        similarity, torch.tensor(start).double(), torch.tensor(target).double()
    )
    assert entropy(similarity, tau).mean().item() == pytest.approx(target, abs=1e-3)


def test_a_temperature_that_no_entropy_asks_for_stays_within_its_bounds():
    """Where the entropy doesn't move, eight halvings or doublings are made, from 0.001 to 1,000."""
    target = torch.tensor([0.5, 0.5, 0.99, 0.99])
    start = torch.tensor([1.0, 0.1, 1.0, 10.0])
    flat, sharp = torch.zeros(4, 4), 1e9 * torch.eye(4)
    found = temperature_at_entropy(torch.stack([flat, flat, sharp, sharp]), start, target)
    torch.testing.assert_close(found, torch.tensor([1 / 256, 1e-3, 256.0, 1e3]))


@pytest.mark.parametrize("signal", ["variance", "spread"])
def test_sharpness_of_a_collapsed_model_is_the_least_temperature(signal):
    schedule = Scheduler(signal, "sharpness")(torch.ones(3, 3), 0.1)
    assert schedule.temperature.item() == pytest.approx(1e-3)


def test_a_signal_registered_from_outside_drives_every_actuator(monkeypatch):
    """Half the spread, so that its weights are those of the spread and its temperature is half."""
    mine = Signal(
        lambda similarity, temperature: spread(similarity, temperature) / 2,
        lambda similarity, temperature, target: (similarity.amax() - similarity.amin()) / target,
        default_target=4.0,
        target_below=5.0,
    )
    monkeypatch.setitem(SIGNALS, "mine", mine)
    similarity = random_similarity(9, 6).float()
    for actuator in ("direction", "magnitude", "sample"):
        found, known = (Scheduler(name, actuator)(similarity, 0.1) for name in ("mine", "spread"))
        for a, b in zip(found, known, strict=True):
            torch.testing.assert_close(a, b)
    held = Scheduler("mine", "sharpness")(similarity, 0.1).temperature
    torch.testing.assert_close(held, (similarity.amax() - similarity.amin()) / 4)
    with pytest.raises(ValueError, match=r"^target must be in \(0, 5\); it is 5"):
        Scheduler("mine", "sharpness", target=5.0)
    assert Scheduler("mine", target=5.0).target == 5


def test_sharpness_refuses_a_signal_that_it_cannot_hold(monkeypatch):
    monkeypatch.setitem(SIGNALS, "margin", Signal(margin))
    assert Scheduler("margin").target is None
    with pytest.raises(ValueError, match=r"^the signal 'margin' has no scale, so sharpness cannot"):
        Scheduler("margin", "sharpness", target=1.0)
    with pytest.raises(ValueError, match=r"^sharpness needs a signal with a scale, and a target$"):
        ACTUATORS["sharpness"].observe(SIGNALS["margin"], torch.eye(3), TAU, None)
    monkeypatch.setitem(SIGNALS, "margin", Signal(margin, SIGNALS["spread"].scale))
    with pytest.raises(ValueError, match=r"^target must be given: the signal 'margin' has no def"):
        Scheduler("margin", "sharpness")
    assert Scheduler("margin", "sharpness", target=2.0)(torch.eye(3), 0.1).temperature == 0.5


def test_a_signal_of_zero_has_the_least_share_and_gives_no_nan():
    shares = powers(torch.tensor([0.0, 1.0, 1.0]), torch.tensor(0.5))
    # √tiny is 1e-19: nothing beside 1.
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(powers(torch.zeros(2), torch.tensor(-9.0)), torch.tensor([0.5, 0.5]))


def test_magnitude_from_nothing_is_at_its_bound():
    scheduler = Scheduler("spread", "magnitude", beta=0.5, bounds=(0.25, 3.0))
    weights = [scheduler(s * torch.eye(2), 0.1).weights.tolist() for s in (0.0, 1.0)]
    assert weights == [[1.0, 1.0], [3.0, 3.0]]


def test_sample_weights_by_hand():
    similarity = torch.tensor([[0.8, 0.0], [0.4, 0.2]])
    schedule = Scheduler("spread", "sample")(similarity, 0.1)
    # Ranges: rows .8, .2; columns .4, .2; shares times B = 2.
    torch.testing.assert_close(schedule.sample_weights, torch.tensor([[1.6, 0.4], [4 / 3, 2 / 3]]))


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
def test_warm_up_is_neutral(signal, actuator):
    similarity = random_similarity(3, 6).float()
    scheduler = Scheduler(signal, actuator, gamma=5.0, warmup=2)
    neutral = Fixed()(similarity, 0.25)
    for _ in range(2):
        for got, expected in zip(scheduler(similarity, 0.25), neutral, strict=True):
            torch.testing.assert_close(got, expected)
    third = scheduler(similarity * 0.9, 0.25)
    assert any(not torch.equal(got, expected) for got, expected in zip(third, neutral, strict=True))


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_leading_axes_are_independent_runs(signal, actuator, leading):
    steps = [
        (random_similarity(seed, 7, leading).float(), torch.full(leading, 0.1)) for seed in range(3)
    ]
    make = partial(Scheduler, signal, actuator)
    assert_stack_is_its_runs(make(batch_shape=leading), lambda _: make(), steps, leading)


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
def test_constants_of_each_run_of_a_stack(signal, actuator):
    make = partial(Scheduler, signal, actuator)
    gammas, targets = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.7])
    step = random_similarity(5, 6).float().expand(2, 6, 6), torch.tensor([0.1, 0.2])
    assert_stack_is_its_runs(
        make(gamma=gammas, target=targets, batch_shape=(2,)),
        lambda place: make(gamma=gammas[place].item(), target=targets[place].item()),
        [step],
        (2,),
    )


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
def test_state_is_saved_and_restored(signal, actuator):
    steps = [(random_similarity(seed, 5).float(), 0.1) for seed in range(4)]
    assert_resumes(partial(Scheduler, signal, actuator, warmup=1), steps, stop=2)


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_collapsed_model_gets_a_finite_schedule(signal, actuator, value):
    """All similarities equal: every signal is constant, and no weight may turn NaN."""
    scheduler = Scheduler(signal, actuator)
    similarity = torch.full((4, 4), value, requires_grad=True)
    schedule = scheduler(similarity, 0.1)
    assert all(part.isfinite().all() for part in schedule)
    torch.testing.assert_close(schedule.weights, torch.ones(2))
    torch.testing.assert_close(schedule.sample_weights, torch.ones(2, 4))


def test_no_gradient_flows_through_a_schedule():
    similarity = random_similarity(0, 4).float().requires_grad_()
    assert not any(part.requires_grad for part in Scheduler()(similarity, TAU))


HELD_ENTROPY = {"signal": "entropy", "actuator": "sharpness"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signal": "varaince"}, "signal 'varaince' is unknown"),
        ({"actuator": "sampel"}, "actuator 'sampel' is unknown"),
        ({"gamma": float("nan")}, r"gamma must be finite; it is nan"),
        ({"beta": 1.0}, r"beta must be in \[0, 1\); it is 1"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\); it is -0.1"),
        ({"warmup": -1}, "warmup must be 0 or a count; it is -1"),
        ({"warmup": torch.tensor(1.5)}, "warmup must be 0 or a count; it is 1.5"),
        ({"target": 0.0}, "target must be positive; it is 0"),
        ({"target": float("inf")}, "target must be positive; it is inf"),
        (HELD_ENTROPY | {"target": 1.0}, r"target must be in \(0, 1\);"),
        (HELD_ENTROPY | {"target": 0.0}, r"target must be in \(0, 1\);"),
        ({"bounds": (2.0, 0.5)}, r"bounds must be 0 < low ≤ 1 ≤ high; it is \(.*2\..*, .*0.5"),
        ({"bounds": (0.0, 2.0)}, "bounds must be"),
        ({"bounds": (1.5, 2.0)}, "bounds must be"),
        ({"bounds": (0.5, 0.9)}, "bounds must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        Scheduler(**arguments)
    if "unknown" in message:
        known = ACTUATORS if "actuator" in arguments else SIGNALS
        assert str(caught.value).endswith(f"s are {', '.join(known)}")


@pytest.mark.parametrize(
    "arguments",
    [
        {"beta": 0.0},
        {"target": 1.5, "signal": "entropy"},
        {"target": 1.0, "actuator": "sharpness"},
        {"bounds": (1.0, 1.0)},
    ],
)
def test_arguments_at_the_edge_are_taken(arguments):
    schedule = Scheduler(**arguments)(torch.eye(3), 0.1)
    assert all(part.isfinite().all() for part in schedule)


def test_a_scheduler_keeps_its_state_and_not_its_constants():
    scheduler = Scheduler("entropy", "sharpness", batch_shape=(2,))
    assert set(scheduler.state_dict()) == {"average", "reference", "steps"}
    assert (scheduler.average.shape, scheduler.reference.shape) == ((2, 1), (2, 1))
    assert scheduler.steps.dtype == torch.long
    assert scheduler.target.tolist() == [pytest.approx(0.8)] * 2
    assert "entropy × sharpness" in repr(scheduler)


@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize(
    ("name", "value", "bad", "rule"),
    [
        ("gamma", -3, math.nan, "gamma must be finite; it is nan"),
        ("beta", 0.5, 1.0, r"beta must be in \[0, 1\); it is 1"),
        ("warmup", 4, 1.5, "warmup must be 0 or a count; it is 1.5"),
        ("target", 0.5, 1.0, r"target must be in \(0, 1\); it is 1"),
        ("low", 0.25, 2.0, r"bounds must be 0 < low ≤ 1 ≤ high; it is \(.*2\..*, .*2\."),
        ("high", 3.0, 0.5, r"bounds must be 0 < low ≤ 1 ≤ high; it is \(.*0\.5.*, .*0\.5"),
    ],
)
def test_a_constant_is_assigned_into_its_buffer_or_refused(name, value, bad, rule, batch_shape):
    scheduler = Scheduler("entropy", "sharpness", batch_shape=batch_shape).double()
    buffer = getattr(scheduler, name)
    for new in (value, torch.full(batch_shape, float(value), requires_grad=True)):
        buffer.fill_(1.0)
        setattr(scheduler, name, new)
        assert not buffer.requires_grad
        assert getattr(scheduler, name) is buffer
        assert buffer.dtype == torch.float64
        assert (buffer == value).all()
    with pytest.raises(ValueError, match="bounds|" + name + " must be a number or of batch_shape"):
        setattr(scheduler, name, torch.ones(3))
    with pytest.raises(ValueError, match=rule.replace("it is", ".*" if batch_shape else "it is")):
        setattr(scheduler, name, bad)
    assert (buffer == value).all()


def test_a_target_may_be_set_where_there_was_none(monkeypatch):
    monkeypatch.setitem(SIGNALS, "margin", Signal(margin))
    scheduler = Scheduler("margin")
    scheduler.target = 2.0
    assert scheduler.target == 2
    assert "target" not in scheduler.state_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_constants_and_state_of_a_scheduler_never_turn_half(dtype):
    scheduler = Scheduler("entropy", beta=0.999, warmup=1001)
    before = scheduler.gamma.dtype, float(scheduler.beta), float(scheduler.warmup)
    scheduler.to(dtype)
    assert (scheduler.gamma.dtype, float(scheduler.beta), float(scheduler.warmup)) == before
    assert scheduler.average.dtype == torch.float32
    assert scheduler.double().to(dtype).average.dtype == torch.float64


@pytest.mark.parametrize("module", [Fixed(), Scheduler().double()])
def test_a_schedule_has_the_type_of_its_similarities(module):
    schedule = module(torch.eye(3, dtype=torch.float64), torch.tensor(0.1, requires_grad=True))
    assert {part.dtype for part in schedule} == {torch.float64}
    assert not any(part.requires_grad for part in schedule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_mean_variances_of_a_stack_in_single_precision_at_least(dtype, leading):
    similarity = random_similarity(6, 40, leading).to(dtype)
    found = mean_variances(similarity)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, variance(similarity.to(found.dtype), TAU).mean(-1))


def test_mean_variances_far_from_zero_keep_their_digits():
    similarity = 1000 + random_similarity(8, 12).float()
    exact = variance(similarity.double(), TAU.double()).mean(-1)
    torch.testing.assert_close(mean_variances(similarity).double(), exact, rtol=1e-3, atol=0)
    found = torch.tensor(mean_variances_on_host(similarity)).double()
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_mean_variances_of_what_is_not_finite_are_not(value):
    similarity = torch.eye(4)
    similarity[1, 2] = value
    assert not any(map(math.isfinite, mean_variances_on_host(similarity)))


@pytest.mark.parametrize("module", [Fixed(), Scheduler()])
@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (torch.zeros(1, 1), "single pair"),
        (torch.zeros(2, 3), r"\(2, 3\)"),
        (torch.zeros(4), r"\(4,\)"),
        (torch.eye(3).long(), r"^similarity must hold real floats; it is torch\.int64$"),
    ],
)
def test_bad_similarities_are_refused(module, similarity, message):
    with pytest.raises(ValueError, match=message):
        module(similarity, 0.1)


def test_a_trace_is_played_step_by_step_and_then_held():
    trace = Trace(
        torch.tensor([[[1.2, 0.8], [0.5, 1.5]], [[1.0, 1.0], [2.0, 0.0]]]),
        torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
    )
    similarity = torch.rand(2, 5, 5)
    first, second, third = (trace(similarity, 0.07) for _ in range(3))
    assert first.weights.tolist() == [[pytest.approx(1.2), pytest.approx(0.8)], [1.0, 1.0]]
    assert second.temperature.tolist() == [pytest.approx(0.2), pytest.approx(0.4)]
    torch.testing.assert_close(second.weights, third.weights)
    torch.testing.assert_close(second.temperature, third.temperature)
    assert (first.sample_weights == 1).all()


def test_a_trace_without_temperatures_leaves_the_one_in_force_and_resumes():
    weights = torch.tensor([[1.2, 0.8], [0.5, 1.5], [1.0, 1.0]])
    trace, similarity = Trace(weights), torch.eye(3)
    assert trace(similarity, 0.07).temperature == pytest.approx(0.07)
    resumed = Trace(weights)
    resumed.load_state_dict(trace.state_dict())
    torch.testing.assert_close(resumed(similarity, 0.07), trace(similarity, 0.07))


@pytest.mark.parametrize(
    ("weights", "temperature", "said"),
    [
        (torch.ones(2), None, r"weights must be \(\.\.\., T, 2\), T ≥ 1; they are \(2,\)"),
        (torch.ones(3), None, r"weights must be \(\.\.\., T, 2\)"),
        (torch.ones(0, 2), None, r"T ≥ 1"),
        (torch.tensor([[1.0, float("nan")]]), None, "finite"),
        (torch.tensor([[3.0, -1.0]]), None, "not negative"),
        (torch.ones(3, 2), torch.ones(2), r"temperature must be \(\.\.\., T\) = \(3,\)"),
        (torch.ones(1, 2), torch.zeros(1), "temperature must be finite and positive"),
    ],
)
def test_an_unusable_trace_is_refused(weights, temperature, said):
    with pytest.raises(ValueError, match=said):
        Trace(weights, temperature)


def test_a_trace_is_of_its_stack_alone():
    weights = torch.rand(4, 3, 2)
    trace = Trace(weights, torch.rand(4, 3) + 0.1)
    assert torch.equal(trace(torch.eye(3).expand(4, 3, 3), 0.1).weights, weights[:, 0])
    with pytest.raises(ValueError, match="leading axes"):
        Trace(torch.ones(4, 2, 2))(torch.eye(3).expand(3, 3, 3), 0.1)


def test_similarities_that_are_not_finite_are_counted_and_the_first_is_located():
    similarity = torch.eye(3)
    similarity[1, 2] = similarity[2, 0] = math.nan
    said = (
        r"^similarity holds 2 numbers that are not finite, the first at \[1, 2\]; the model has "
        "diverged, or its input has$"
    )
    for module in (Fixed(), Scheduler(), Scheduler("entropy")):
        with pytest.raises(ValueError, match=said):
            module(similarity, 0.1)
    # A sum that overflows is no infinity.
    assert Fixed()(torch.full((2, 2), 3e38), 0.1).weights.tolist() == [1, 1]


def test_similarities_and_constants_of_another_stack_are_refused():
    with pytest.raises(ValueError, match="batch_shape"):
        Scheduler(batch_shape=(3,))(torch.zeros(2, 4, 4), 0.1)
    said = r"^gamma must be a number or of batch_shape=\(2,\); its shape is \(3,\)$"
    with pytest.raises(ValueError, match=said):
        Scheduler(gamma=torch.ones(3), batch_shape=(2,))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, torch.tensor(0.0)])
def test_a_temperature_without_sense_is_refused(temperature):
    said = f"^temperature must be positive and finite; it is {float(temperature)}$"
    for module in (Fixed(), Scheduler()):
        with pytest.raises(ValueError, match=said):
            module(torch.eye(3), temperature)


def test_a_stack_of_stacks_is_no_single_pair():
    similarity = torch.eye(3).expand(1, 1, 3, 3)
    assert variance(similarity, TAU).shape == (1, 1, 2, 3)


def test_a_neutral_schedule_has_the_shape_of_its_runs():
    schedule = Fixed()(torch.zeros(5, 3, 4, 4), 0.1)
    assert schedule.weights.shape == (5, 3, 2)
    assert schedule.sample_weights.shape == (5, 3, 2, 4)
    assert schedule.temperature.shape == (5, 3)


def test_whole_numbers_as_constants_are_floats():
    scheduler = Scheduler(gamma=2, beta=0, target=1)
    assert {scheduler.gamma.dtype, scheduler.beta.dtype, scheduler.target.dtype} == {torch.float32}


def test_entropy_takes_the_temperature_in_the_similarities_precision():
    similarity = random_similarity(1, 5)
    by_row = torch.softmax(similarity / 0.07, dim=-1)
    expected = -(by_row * by_row.log()).sum(dim=-1) / math.log(5)
    torch.testing.assert_close(entropy(similarity, 0.07)[0], expected, rtol=1e-12, atol=0)


def test_a_subclass_of_tensors_cannot_be_read():
    class Traced(torch.Tensor):
        pass

    assert is_traced(torch.eye(2).as_subclass(Traced))
    assert not is_traced(torch.eye(2))
