"""The scheduled loss as a module: the study's formula, torch's conventions, several processes."""

import copy
import math
from datetime import timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lib.losses import ScheduledContrastiveLoss, contrastive_loss
from lib.schedulers import ACTUATORS, SIGNALS, Fixed, Scheduler, Trace, mean_variances, variance
from lib.schedulers.moments import mean_variances_on_host

TAU = torch.tensor(0.1)


def pairs(seed: int, size: int = 8, width: int = 6, leading: tuple[int, ...] = ()):
    draws = torch.Generator().manual_seed(seed)
    both = torch.randn(2, *leading, size, width, generator=draws, dtype=torch.float64)
    image, text = F.normalize(both, dim=-1)
    return image, F.normalize(image + text, dim=-1)


@st.composite
def matrices(draw):
    """Float32 similarities: of any mean and deviation, with hubs, or collapsed."""
    size = draw(st.integers(2, 40))
    mean = draw(st.sampled_from([0.0, 0.3, -0.9, 0.999, 100.0]))
    deviation = draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0]))
    rows, columns = (draw(st.sampled_from([0.0, 1e-3, 1.0])) for _ in range(2))
    draws = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    cells = torch.randn(size, size, generator=draws, dtype=torch.float64)
    hubs = rows * torch.randn(size, 1, generator=draws) + columns * torch.randn(1, size)
    return (mean + deviation * (cells + hubs)).float()


@settings(max_examples=50)
@given(matrices())
def test_sums_give_the_mean_variances(similarity):
    """To 1e-4 of the total variance, plus the rounding that the numbers themselves carry."""
    exact = variance(similarity.double(), TAU.double()).mean(-1)
    total = similarity.double().var(correction=0).item()
    rounding = (torch.finfo(torch.float32).eps * similarity.abs().max().item()) ** 2
    for found in (mean_variances(similarity), torch.tensor(mean_variances_on_host(similarity))):
        torch.testing.assert_close(
            found.double(), exact, rtol=0, atol=1e-4 * total + 10 * rounding + 1e-30
        )


@settings(max_examples=50)
@given(matrices(), st.sampled_from([-3.0, 0.5, 1.0, 10.0]))
def test_a_quick_step_agrees_with_the_study(similarity, gamma):
    if similarity.std() < 1e-6 * similarity.abs().max():
        return  # All deviations are rounding: no formula has digits to agree on.
    study = Scheduler(gamma=gamma).double()
    quick = Scheduler(gamma=gamma)
    for step in (similarity, similarity.flip(0), similarity.T):
        expected = study(step.double(), 0.1)
        found = quick.quick(step, 0.1)
    torch.testing.assert_close(
        found.weights.double(), expected.weights, rtol=0, atol=1e-4 * max(1, abs(gamma))
    )


@pytest.mark.parametrize("size", [2, 3, 64, 300])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_collapsed_model_gets_weights_of_one(size, value):
    loss = ScheduledContrastiveLoss(Scheduler(gamma=10.0))
    image = torch.full((size, 4), math.sqrt(value) / 2, requires_grad=True)
    found = loss(image, image.detach())
    found.backward()
    assert found.item() == pytest.approx(math.log(size), rel=1e-5)
    torch.testing.assert_close(loss.weights, torch.ones(2), atol=1e-5, rtol=0)
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("actuator", ACTUATORS)
def test_loss_and_gradients_are_those_of_the_study(signal, actuator):
    settings_of = {"gamma": 3.0, "beta": 0.5, "warmup": 1}
    study = Scheduler(signal, actuator, **settings_of).double()
    loss = ScheduledContrastiveLoss(Scheduler(signal, actuator, **settings_of)).double()
    for seed in range(3):
        one, other = ([x.clone().requires_grad_() for x in pairs(seed)] for _ in range(2))
        found = loss(*one, logit_scale=5.0)
        found.backward()
        similarity = other[0] @ other[1].T
        expected = contrastive_loss(similarity, study(similarity, 0.2))
        expected.backward()
        torch.testing.assert_close(found, expected)
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for name, value in study.state_dict().items():
        torch.testing.assert_close(loss.scheduler.state_dict()[name], value)


def test_with_a_fixed_scheduler_it_is_clips_loss_and_its_scale_is_learned():
    image, text = pairs(0)
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(len(image))
    logits = scale * image @ text.T
    clip = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    (expected,) = torch.autograd.grad(clip, scale)
    for scheduler in (Fixed(), Scheduler(gamma=0.0).double()):
        found = ScheduledContrastiveLoss(scheduler)(image, text, scale)
        torch.testing.assert_close(found, clip)
        torch.testing.assert_close(torch.autograd.grad(found, scale)[0], expected)


def test_a_schedule_in_advance_sets_its_temperature():
    trace = Trace(torch.tensor([[1.5, 0.5]]), torch.tensor([0.25]))
    image, text = (x.float() for x in pairs(1))
    similarity = image @ text.T
    expected = contrastive_loss(similarity, copy.deepcopy(trace)(similarity, 0.1))
    torch.testing.assert_close(ScheduledContrastiveLoss(trace)(image, text), expected)


def test_evaluation_is_plain_and_leaves_the_state():
    loss = ScheduledContrastiveLoss(Scheduler(gamma=10.0))
    image, text = (x.float() for x in pairs(2))
    loss(image, text)
    before = copy.deepcopy(loss.state_dict())
    plain = ScheduledContrastiveLoss(Fixed())(image, text)
    torch.testing.assert_close(loss.eval()(image, text), plain)
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_state_resumes_to_the_same_bits():
    steps = [[x.float() for x in pairs(seed)] for seed in range(5)]
    whole, first, second = (ScheduledContrastiveLoss(Scheduler(gamma=9.0)) for _ in range(3))
    expected = [whole(*step) for step in steps]
    for step in steps[:2]:
        first(*step)
    second.load_state_dict(first.state_dict())
    found = [second(*step) for step in steps[2:]]
    assert all(torch.equal(a, b) for a, b in zip(found, expected[2:], strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_in_other_precisions(dtype):
    image, text = (x.to(dtype) for x in pairs(3, size=32))
    loss = ScheduledContrastiveLoss(Scheduler(gamma=10.0)).to(dtype)
    exact = ScheduledContrastiveLoss(Scheduler(gamma=10.0)).double()
    for _ in range(3):
        found, expected = loss(image, text), exact(image.double(), text.double())
    # A half-precision product has three digits or so; the rest is done in single precision.
    tolerance = 1e-9 if dtype is torch.float64 else 2e-2
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=0)
    assert loss.scheduler.average.dtype in (torch.float32, torch.float64)


def test_under_autocast_the_sums_stay_in_single_precision():
    image, text = (x.float() for x in pairs(4, size=64))
    loss, half = ScheduledContrastiveLoss(), ScheduledContrastiveLoss()
    rounded = (image.bfloat16() @ text.bfloat16().T).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = half(image, text)
    assert found.dtype == torch.float32
    expected = contrastive_loss(rounded, Scheduler()(rounded, 0.1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(found, loss(image, text), rtol=1e-2, atol=0)


def test_vmap_over_stacked_states_is_a_loop():
    runs = [ScheduledContrastiveLoss(Scheduler(gamma=g)) for g in (1.0, -5.0, 10.0)]
    alone = copy.deepcopy(runs)
    _, state = torch.func.stack_module_state(runs)

    def call(state, image, text):
        return torch.func.functional_call(runs[0], state, (image, text))

    for seed in range(3):
        image, text = (x.float() for x in pairs(seed, leading=(3,)))
        together = torch.func.vmap(call)(state, image, text)
        one_by_one = [loss(image[i], text[i]) for i, loss in enumerate(alone)]
        torch.testing.assert_close(together, torch.stack(one_by_one))


def test_leading_axes_are_runs():
    stacked = ScheduledContrastiveLoss(Scheduler(gamma=torch.tensor([1.0, 10.0]), batch_shape=(2,)))
    alone = [ScheduledContrastiveLoss(Scheduler(gamma=g)) for g in (1.0, 10.0)]
    image, text = (x.float() for x in pairs(5, leading=(2,)))
    scale = torch.tensor([5.0, 9.0])
    found = stacked(image, text, scale)
    for run, loss in enumerate(alone):
        torch.testing.assert_close(found[run], loss(image[run], text[run], scale[run]))


def test_it_compiles_whole_and_gives_the_same():
    """The graph is one; the backend adds nothing to that, so the cheapest is used."""
    plain = ScheduledContrastiveLoss(Scheduler(gamma=5.0))
    compiled = torch.compile(copy.deepcopy(plain), fullgraph=True, backend="eager")
    for seed in range(3):
        one, other = ([x.float().requires_grad_() for x in pairs(seed)] for _ in range(2))
        a, b = compiled(*one), plain(*other)
        a.backward()
        b.backward()
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(one[0].grad, other[0].grad)


def gathered(rank: int, path: str) -> None:
    """What one of two processes does: half of the batch, as DistributedDataParallel trains it."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{path}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 4, bias=False))
    model.module.load_state_dict(torch.load(f"{path}/weights.pt"))
    loss = ScheduledContrastiveLoss(Scheduler(gamma=10.0), gather=True)
    mine = slice(4 * rank, 4 * rank + 4)
    for seed in range(2):
        model.zero_grad()
        image, text = (x.float()[mine] for x in pairs(seed))
        found = loss(F.normalize(model(image), dim=-1), text[:, :4])
        found.backward()
    torch.save([found.detach(), loss.weights, model.module.weight.grad], f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    model = torch.nn.Linear(6, 4, bias=False)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    # This process is one of the two: a further one has to import torch again.
    other = torch.multiprocessing.get_context("spawn").Process(
        target=gathered, args=(1, str(tmp_path))
    )
    other.start()
    gathered(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    loss = ScheduledContrastiveLoss(Scheduler(gamma=10.0))
    for seed in range(2):
        model.zero_grad()
        image, text = (x.float() for x in pairs(seed))
        found = loss(F.normalize(model(image), dim=-1), text[:, :4])
        found.backward()
    for rank in range(2):
        shared = torch.load(tmp_path / f"{rank}.pt")
        for a, b in zip(shared, (found.detach(), loss.weights, model.weight.grad), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (torch.ones(4), torch.ones(4), "image_embeddings must be"),
        (torch.ones(4, 2), torch.ones(3, 2), r"text_embeddings must be .*\(3, 2\) and \(4, 2\)"),
        (torch.ones(1, 2), torch.ones(1, 2), "image_embeddings holds 1 pairs"),
        (torch.ones(2, 2).long(), torch.ones(2, 2).long(), "must be real floats"),
        (torch.ones(2, 2), torch.ones(2, 2, device="meta"), "text_embeddings is on meta"),
    ],
)
def test_bad_embeddings_are_named(image, text, message):
    with pytest.raises(ValueError, match=message):
        ScheduledContrastiveLoss()(image, text)


@pytest.mark.parametrize("scheduler", [Scheduler(), Scheduler("entropy"), Fixed()])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_numbers_that_are_not_finite_are_named_and_leave_the_state(scheduler, value, place):
    both = [x.float() for x in pairs(6)]
    both[place][2, 1] = value
    name = ("image_embeddings", "text_embeddings")[place]
    loss = ScheduledContrastiveLoss(copy.deepcopy(scheduler))
    with pytest.raises(ValueError, match=rf"{name} holds 1 numbers .* \[2, 1\]"):
        loss(*both)
    assert all(not value.any() for value in loss.state_dict().values())
    loss.check_finite = False
    assert not loss(*both).isfinite()


def test_a_scale_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="logit_scale must be 1 / τ, positive and finite"):
        ScheduledContrastiveLoss()(*pairs(7), torch.tensor(math.nan))
    with pytest.raises(ValueError, match="temperature must be positive"):
        ScheduledContrastiveLoss(temperature=0.0)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_exchanging_image_and_text_exchanges_the_weights(seed, size):
    image, text = pairs(seed, size)
    one, other = (ScheduledContrastiveLoss(Scheduler(gamma=8.0)) for _ in range(2))
    torch.testing.assert_close(one(image, text), other(text, image))
    torch.testing.assert_close(one.weights, other.weights.flip(0), atol=1e-5, rtol=1e-5)
