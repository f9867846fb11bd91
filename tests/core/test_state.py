"""When a scheduler takes a step: once per optimiser step, in training, on finite numbers."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from similarities import unit_pairs as pairs
from torch import nn

from lib.losses import ScheduledContrastiveLoss
from lib.rivals import CosineTemperature, DynamicWeightAverage, GradNorm, IndividualTemperatures
from lib.schedulers import ACTUATORS, SIGNALS, Fixed, Scheduler, Trace

KINDS = [
    (signal, actuator)
    for signal in SIGNALS
    for actuator in ACTUATORS
    if SIGNALS[signal].scale or not ACTUATORS[actuator].sets_temperature
]
STEERED = {"beta": 0.8, "gamma": 3.0}


def trace():
    return Trace(torch.rand(9, 2), torch.full((9,), 0.2))


class Counted(nn.Module):
    """A scheduler of one's own: the weights count the calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, similarity, temperature):
        self.calls += 1
        schedule = Fixed()(similarity.nan_to_num(), temperature)
        return schedule._replace(weights=schedule.weights * self.calls)


class Doubled(Scheduler):
    """A subclass with a rule of its own."""

    def forward(self, similarity, temperature):
        schedule = super().forward(similarity, temperature)
        return schedule._replace(weights=2 * schedule.weights)


MODULES = {
    **{f"{s} × {a}": lambda s=s, a=a: Scheduler(s, a, **STEERED) for s, a in KINDS},
    "subclass": Doubled,
    "cosine": lambda: CosineTemperature(0.05, 0.5, period=7),
    "average": lambda: DynamicWeightAverage(period=1),
    "trace": trace,
    "of one's own": Counted,
}
every_module = pytest.mark.parametrize("name", MODULES)


def made(name, **options):
    torch.manual_seed(0)
    return ScheduledContrastiveLoss(MODULES[name](), **options)


def held(loss):
    return copy.deepcopy(dict(loss.state_dict()))


def assert_same_state(loss, state):
    torch.testing.assert_close(dict(loss.state_dict()), state, atol=0, rtol=0, equal_nan=True)


@every_module
@pytest.mark.parametrize("mode", ["evaluation", "no gradients", "inference"])
def test_evaluation_is_plain_and_moves_nothing(name, mode):
    loss = made(name)
    loss(*pairs())
    state = held(loss)
    loss.train(mode != "evaluation")
    contexts = {"no gradients": torch.no_grad, "inference": torch.inference_mode}
    with contexts.get(mode, nullcontext)():
        value = loss(*pairs(1))
    plain = ScheduledContrastiveLoss(Fixed())(*pairs(1))
    torch.testing.assert_close(value, plain, atol=0, rtol=0)
    assert_same_state(loss, state)


@pytest.mark.parametrize(
    "module",
    [Scheduler(), Scheduler("entropy", "sharpness"), trace(), DynamicWeightAverage(period=1)],
)
def test_a_scheduler_alone_rests_in_evaluation_mode(module):
    state = copy.deepcopy(module.state_dict())
    similarity = pairs()[0] @ pairs()[1].T
    schedule = module.eval()(similarity, 0.1)
    torch.testing.assert_close(schedule, Fixed()(similarity, 0.1))
    torch.testing.assert_close(module.state_dict(), state)
    assert not torch.equal(module.train()(similarity, 0.1).weights, torch.zeros(2))
    assert module.steps == 1


def test_rules_of_gradients_and_of_single_queries_rest_in_evaluation_mode():
    shared = torch.ones(2, requires_grad=True)
    balance = GradNorm().eval()
    balance(torch.tensor([[3.0, 0.0], [0.0, 1.0]]) @ shared, [shared])
    assert balance.weights.tolist() == [1, 1]
    assert balance.steps == 0
    queries = IndividualTemperatures(3, start=0.1, rho=0.5).eval()
    state = copy.deepcopy(queries.state_dict())
    queries(torch.eye(2), torch.tensor([2, 0]))
    torch.testing.assert_close(queries.state_dict(), state)


@every_module
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_batch_that_is_not_finite_leaves_the_state_as_it_was(name, bad):
    spoilt = pairs(1)
    spoilt[0, 2, 3] = bad
    for first in (False, True):
        loss = made(name, check_finite=False)
        if not first:
            loss(*pairs())
        state = held(loss)
        loss(*spoilt)
        assert_same_state(loss, state)
        loss.check_finite = True
        with pytest.raises(ValueError, match="image_embeddings holds 1 numbers"):
            loss(*spoilt)
        assert_same_state(loss, state)
        assert loss(*pairs(2)).isfinite()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("leading", [(), (1,)])
def test_a_rival_alone_forgets_numbers_that_are_not_finite(leading, bad):
    similarity = (pairs()[0] @ pairs()[1].T).expand(*leading, 6, 6)
    spoilt = similarity.clone()
    spoilt[..., 2, 3] = bad
    shared = torch.ones(*leading, 3, requires_grad=True)

    def losses(scale):
        return torch.stack([shared.sum(-1), scale * shared.sum(-1)], dim=-1)

    index = torch.arange(6).expand(*leading, 6)
    rules = {
        DynamicWeightAverage(period=3, batch_shape=leading): lambda s, _: (s, 0.1),
        CosineTemperature(0.1, 0.5, 4, batch_shape=leading): lambda s, _: (s, 0.1),
        IndividualTemperatures(6, 0.1, 0.5, batch_shape=leading): lambda s, _: (s, index),
        GradNorm(batch_shape=leading): lambda _, scale: (losses(scale), [shared]),
    }
    for rule, arguments in rules.items():
        rule(*arguments(similarity, 2.0))
        state = held(rule)
        with nullcontext() if leading else pytest.raises(ValueError, match="not finite"):
            rule(*arguments(spoilt, bad))
        assert_same_state(rule, state)


@pytest.mark.parametrize(("signal", "actuator"), KINDS)
def test_a_run_of_a_stack_that_is_not_finite_leaves_its_state_alone(signal, actuator):
    both = torch.stack([pairs(0), pairs(1)], dim=1)
    spoilt = both.clone()
    spoilt[0, 0, 2, 3] = math.nan
    stack = Scheduler(signal, actuator, batch_shape=(2,), warmup=1, **STEERED)
    alone = [Scheduler(signal, actuator, warmup=1, **STEERED) for _ in range(2)]
    for batch in (spoilt, both, both):
        schedule = stack(batch[0] @ batch[1].mT, 0.1)
        for run, scheduler in enumerate(alone):
            if batch[:, run].isfinite().all():
                single = scheduler(batch[0, run] @ batch[1, run].T, 0.1)
                torch.testing.assert_close([part[run] for part in schedule], list(single))
    assert stack.steps.tolist() == [2, 3]
    for run, scheduler in enumerate(alone):
        for name, buffer in scheduler.state_dict().items():
            torch.testing.assert_close(stack.state_dict()[name][run], buffer)


def test_a_compiled_loss_forgets_a_batch_that_is_not_finite():
    loss = ScheduledContrastiveLoss(Scheduler("variance", "magnitude", **STEERED))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled(*pairs())
    state = held(loss)
    spoilt = pairs(1)
    spoilt[1, 0, 0] = math.nan
    compiled(*spoilt)
    assert_same_state(loss, state)


def test_a_loss_that_overflows_is_refused_and_leaves_the_state():
    loss = ScheduledContrastiveLoss(Scheduler(**STEERED))
    loss(*pairs())
    state = held(loss)
    with pytest.raises(ValueError, match="a smaller logit_scale"):
        loss(*pairs(1), 3e38)
    assert_same_state(loss, state)


@every_module
def test_micro_batches_take_one_step_with_the_first_ones_signal(name):
    loss, once = made(name), made(name)
    for step in range(3):
        for i in range(4):
            loss.advances = i == 0
            loss(*pairs(10 * step + i))
        once(*pairs(10 * step))
        assert_same_state(loss, held(once))


@every_module
def test_a_later_micro_batch_has_the_schedule_of_the_same_step(name):
    loss = made(name)
    loss(*pairs(0))
    again = copy.deepcopy(loss)
    first = again(*pairs(1))
    loss(*pairs(2))
    loss.advances = False
    torch.testing.assert_close(loss(*pairs(1)), first)


def test_micro_batches_under_the_compiler_take_one_step():
    loss, once = (ScheduledContrastiveLoss(Scheduler(**STEERED)) for _ in range(2))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for step in range(2):
        for i in range(2):
            loss.advances = i == 0
            compiled(*pairs(10 * step + i))
        once(*pairs(10 * step))
    torch.testing.assert_close(loss.state_dict(), once.state_dict())


def test_a_scheduler_put_in_within_a_step_has_its_own_state():
    loss = ScheduledContrastiveLoss(Scheduler(**STEERED))
    loss(*pairs())
    loss.advances, loss.scheduler = False, Scheduler("entropy", **STEERED)
    torch.testing.assert_close(
        loss(*pairs(1)), ScheduledContrastiveLoss(Scheduler("entropy", **STEERED))(*pairs(1))
    )
    assert loss.scheduler.steps == 0


@every_module
def test_a_copy_and_a_saved_state_go_on_with_the_same_numbers(name):
    loss = made(name)
    loss(*pairs())
    loaded = made(name)
    loaded.load_state_dict(loss.state_dict())
    copied = copy.deepcopy(loss)
    values = [each(*pairs(1)) for each in (loss, loaded, copied)]
    assert values[0] == values[1] == values[2]


def test_a_subclass_with_its_own_forward_is_called():
    torch.testing.assert_close(
        ScheduledContrastiveLoss(Doubled())(*pairs()), 2 * ScheduledContrastiveLoss()(*pairs())
    )

    class Halved(Fixed):
        def forward(self, similarity, temperature):
            schedule = super().forward(similarity, temperature)
            return schedule._replace(weights=schedule.weights / 2)

    half = ScheduledContrastiveLoss(Halved())(*pairs())
    torch.testing.assert_close(2 * half, ScheduledContrastiveLoss(Fixed())(*pairs()))


def test_a_scale_goes_on_learning_beside_a_scheduler_of_ones_own():
    def gradient(scheduler):
        scale = torch.tensor(10.0, requires_grad=True)
        value = ScheduledContrastiveLoss(scheduler)(*pairs(), scale)
        value.backward()
        return value, scale.grad

    class Warmer(nn.Module):
        def forward(self, similarity, temperature):
            return Fixed()(similarity, 2 * temperature)

    torch.testing.assert_close(gradient(Counted()), gradient(Fixed()))
    value, slope = gradient(Warmer())
    torch.testing.assert_close(value, ScheduledContrastiveLoss(Fixed())(*pairs(), 5.0))
    half = torch.tensor(5.0, requires_grad=True)
    ScheduledContrastiveLoss(Fixed())(*pairs(), half).backward()
    torch.testing.assert_close(slope, half.grad / 2)


class Returning(nn.Module):
    """A scheduler of one's own that returns something."""

    def __init__(self, **changes):
        super().__init__()
        self.changes = changes

    def forward(self, similarity, temperature):
        return Fixed()(similarity, temperature)._replace(**self.changes)


def test_a_scheduler_of_ones_own_may_return_plain_numbers():
    loss = ScheduledContrastiveLoss(Returning(weights=[1.5, 0.5], temperature=0.2))
    wanted = ScheduledContrastiveLoss(
        Trace(torch.tensor([[1.5, 0.5]]), torch.tensor([0.2])), temperature=0.2
    )
    torch.testing.assert_close(loss(*pairs()), wanted(*pairs()))
    assert loss.latest() == wanted.latest()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": torch.ones(3)}, r"weights of shape \(2,\); it returned \(3,\)"),
        ({"sample_weights": torch.ones(2, 5)}, r"sample_weights of shape \(2, 6\)"),
        ({"temperature": "hot"}, r"temperature of shape \(\); it returned hot"),
    ],
)
def test_what_is_no_schedule_of_the_batch_is_named(changes, said):
    with pytest.raises(ValueError, match=f"^scheduler must return {said}"):
        ScheduledContrastiveLoss(Returning(**changes))(*pairs())


def test_a_module_that_returns_no_schedule_is_named():
    module = nn.Identity()
    module.forward = lambda similarity, temperature: similarity
    with pytest.raises(ValueError, match=r"^scheduler must return a Schedule, .*Tensor"):
        ScheduledContrastiveLoss(module)(*pairs())


def test_what_is_logged_is_of_the_latest_step():
    loss = ScheduledContrastiveLoss(Scheduler(**STEERED))
    assert loss.latest() == {}
    loss(*pairs(), torch.tensor([8.0]))
    latest = loss.latest()
    loss.eval()(*pairs(1))
    assert loss.latest() == latest
    variances = Scheduler()._signal(pairs()[0] @ pairs()[1].T, 0.1).mean(dim=-1)
    names = ["weight/i2t", "weight/t2i", "signal/i2t", "signal/t2i", "temperature"]
    assert list(latest) == names
    expected = [*loss.weights.tolist(), *variances.tolist(), 1 / 8]
    assert list(latest.values()) == pytest.approx(expected, rel=1e-5)
    magnitude = ScheduledContrastiveLoss(Scheduler("variance", "magnitude"))
    magnitude(*pairs())
    assert list(magnitude.latest()) == ["weight/i2t", "weight/t2i", "signal", "temperature"]
    stack = ScheduledContrastiveLoss(Scheduler(batch_shape=(2,)))
    stack(*torch.stack([pairs(), pairs(1)], dim=1))
    with pytest.raises(ValueError, match="single run"):
        stack.latest()
