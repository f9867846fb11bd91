"""The scheduled loss as a module: the study's formula, torch's conventions, several processes."""

import copy
import math
import re
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from similarities import assert_resumes
from torch.nn import functional as F

from lib.losses import (
    LOSSES,
    ScheduledContrastiveLoss,
    cached_backward,
    contrastive_loss,
    gather_pairs,
    multi_positive,
    weighted_mean,
)
from lib.losses.scheduled import _is_finite, check_embeddings
from lib.rivals import (
    CosineTemperature,
    DynamicWeightAverage,
    GradNorm,
    IndividualTemperatures,
    UncertaintyWeights,
)
from lib.schedulers import ACTUATORS, SIGNALS, Fixed, Scheduler, Trace, mean_variances, variance
from lib.schedulers.signals import mean_variances_on_host

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
    assert_resumes(lambda: ScheduledContrastiveLoss(Scheduler(gamma=9.0)), steps, stop=2)


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
    """Train one of two processes, with half of the batch, as DistributedDataParallel does."""
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
    results = [found.detach(), loss.weights, model.module.weight.grad.clone()]
    torch.save(results + several_ways(model, mine, gather=True), f"{path}/{rank}.pt")
    for count, dtype in ((4 - rank, torch.float32), (4, (torch.float32, torch.float16)[rank])):
        with pytest.raises(ValueError, match=r"^image and text must have the same .* in every"):
            gather_pairs(*torch.ones(2, count, 4, dtype=dtype))
    torch.distributed.destroy_process_group()


def several_ways(model, mine=slice(None), *, gather=False) -> list[torch.Tensor]:
    """The losses of rows that share images and of two captions per image, and the gradient of a
    batch from micro-batches."""
    loss = ScheduledContrastiveLoss(Fixed(), gather=gather)
    image, text = (x.float()[mine] for x in pairs(7))
    embedded, text = F.normalize(model(image), dim=-1), text[:, :4]
    group = torch.tensor([3, 3, 1, 2, 1, 5, 6, 7])[mine].to(torch.uint16)
    two = torch.stack([text, text.flip(-1)], dim=1)
    losses = [loss(embedded, text, group=group), loss(embedded, two)]
    model.zero_grad()
    cached_backward(
        lambda rows: loss(F.normalize(rows, dim=-1), text), [model], [image], len(image) // 2
    )
    (weight,) = model.parameters()
    return [value.detach() for value in losses] + [weight.grad]


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
    alone = [found.detach(), loss.weights, model.weight.grad.clone(), *several_ways(model)]
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), alone)


NOT_FLOATS = "image_embeddings and text_embeddings must be real floats; they are torch"


@pytest.mark.parametrize(
    ("image", "text", "said"),
    [
        (torch.ones(4), torch.ones(4), r"image_embeddings must be \(..., B, d\); .* is \(4,\)$"),
        (torch.ones(4, 2), torch.ones(3, 2), r"text_embeddings must be .*\(3, 2\) and \(4, 2\)"),
        (torch.ones(4, 2), torch.ones(4, 0, 2), r"text_embeddings must be .*K captions per image"),
        (torch.ones(4, 2), torch.ones(3, 5, 2), r"text_embeddings must be .*K captions per image"),
        (torch.ones(2, 2).long(), torch.ones(2, 2).long(), f"{NOT_FLOATS}.int64 and torch.int64$"),
        (torch.ones(2, 2).long(), torch.ones(2, 2), f"{NOT_FLOATS}.int64 and torch.float32$"),
        (torch.ones(2, 2), torch.ones(2, 2).cfloat(), f"{NOT_FLOATS}.float32 and torch.complex64$"),
        (torch.ones(2, 2), torch.ones(2, 2, device="meta"), "text_embeddings is on meta"),
    ],
)
def test_bad_embeddings_are_named(image, text, said):
    for refuse in (check_embeddings, ScheduledContrastiveLoss()):
        with pytest.raises(ValueError, match=f"^{said}"):
            refuse(image, text)


@pytest.mark.parametrize("pairs_in_batch", [0, 1])
def test_a_batch_without_negatives_is_refused_with_the_remedy(pairs_in_batch):
    said = f"image_embeddings holds {pairs_in_batch} pairs: .*; use drop_last, or skip_single=True$"
    for shape in ((pairs_in_batch, 2), (pairs_in_batch, 3, 2)):
        with pytest.raises(ValueError, match=said):
            ScheduledContrastiveLoss()(torch.ones(pairs_in_batch, 2), torch.ones(shape))


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


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_exchanging_image_and_text_exchanges_the_weights(seed, size):
    image, text = pairs(seed, size)
    one, other = (ScheduledContrastiveLoss(Scheduler(gamma=8.0)) for _ in range(2))
    torch.testing.assert_close(one(image, text), other(text, image))
    torch.testing.assert_close(one.weights, other.weights.flip(0), atol=1e-5, rtol=1e-5)


def test_the_weights_are_those_of_the_latest_call():
    loss = ScheduledContrastiveLoss(Scheduler(gamma=20.0))
    assert loss.weights.tolist() == [1, 1]
    image, text = (x.float() for x in pairs(8))
    loss(image, text)
    expected = Scheduler(gamma=20.0)(image @ text.T, 0.1).weights
    torch.testing.assert_close(loss.weights, expected)
    assert abs(loss.weights[0] - loss.weights[1]) > 0.01


@pytest.mark.parametrize("kind", [("entropy", "direction"), ("spread", "magnitude")])
def test_the_weights_of_any_scheduler_are_kept(kind):
    image, text = pairs(8)
    settings_of = {"gamma": 20.0, "bounds": (0.1, 10.0)}
    loss, study = (Scheduler(*kind, **settings_of).double() for _ in range(2))
    loss = ScheduledContrastiveLoss(loss)
    for factor in (1.0, 0.5):
        found = loss(factor * image, text)
        weights = study(factor * image @ text.T, 0.1).weights
    torch.testing.assert_close(loss.weights, weights)
    assert (weights - 1).abs().max() > 0.01
    # In the type of the embeddings, whatever the scheduler's numbers are.
    assert found.dtype == torch.float64
    assert loss(image.float(), text.float()).dtype == torch.float32


class Reader(torch.nn.Module):
    """A scheduler that keeps the temperature that it is given."""

    def forward(self, similarity, temperature):
        self.seen = temperature
        return Fixed()(similarity, temperature)


def test_no_gradient_flows_through_what_a_scheduler_is_given():
    scale = torch.tensor(4.0, requires_grad=True)
    image, text = (x.float() for x in pairs(8))
    loss = ScheduledContrastiveLoss(Reader())
    loss(image, text, scale)
    assert loss.scheduler.seen == 0.25
    loss(*(x.expand(2, *x.shape) for x in (image, text)), scale.expand(2))
    assert loss.scheduler.seen.tolist() == [0.25, 0.25]
    assert not loss.scheduler.seen.requires_grad


class Halved(torch.nn.Module):
    """A user's scheduler, which sets the temperature too."""

    def forward(self, similarity, temperature):
        return Fixed()(similarity, 0.5 * temperature)


def test_a_users_scheduler_sets_the_temperature_too():
    image, text = pairs(9)
    expected = ScheduledContrastiveLoss(Fixed(), temperature=0.05)(image, text)
    torch.testing.assert_close(ScheduledContrastiveLoss(Halved())(image, text), expected)
    torch.testing.assert_close(ScheduledContrastiveLoss(Halved())(image, text, 10.0), expected)


def test_a_trace_without_temperatures_leaves_the_given_one():
    image, text = pairs(10)
    trace = Trace(torch.ones(2, 2, dtype=torch.float64))
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    found = ScheduledContrastiveLoss(trace)(image, text, scale)
    torch.testing.assert_close(found, ScheduledContrastiveLoss(Fixed())(image, text, 9.0))
    found.backward()
    assert scale.grad != 0


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
def test_a_temperature_out_of_range_is_refused(temperature):
    said = rf"^temperature must be positive and finite; it is {temperature}$"
    with pytest.raises(ValueError, match=said):
        ScheduledContrastiveLoss(temperature=temperature)


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("scheduler", [Scheduler(), Scheduler("entropy"), Fixed()])
@pytest.mark.parametrize(
    "scale", [0.0, -10.0, math.nan, math.inf, torch.tensor(0.0), torch.tensor(-1.0)]
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_scale_that_no_temperature_has_is_named_and_leaves_the_state(scheduler, scale, mode):
    loss = getattr(ScheduledContrastiveLoss(scheduler), mode)()
    said = rf"^logit_scale must be 1 / τ, positive and finite; it is .*{float(scale)}"
    with pytest.raises(ValueError, match=said):
        loss(torch.eye(3), torch.eye(3), scale)
    assert not any(value.any() for value in loss.state_dict().values())


@pytest.mark.parametrize("scheduler", [Scheduler(), Scheduler("variance", "sharpness"), Fixed()])
@pytest.mark.parametrize(
    "scale",
    [np.array(8.0), np.array([8.0]), [8.0], torch.tensor([[8.0]]), torch.tensor(8).half()],
    ids=["array", "array of one axis", "list", "two axes", "half precision"],
)
def test_one_element_is_a_number(scheduler, scale):
    image, text = (x.float() for x in pairs(15))
    for name in ("info_nce", "rince"):
        loss, plain = (ScheduledContrastiveLoss(copy.deepcopy(scheduler), loss=name) for _ in "ab")
        assert torch.equal(loss(image, text, scale), plain(image, text, 8.0))
    biased, plain = (ScheduledContrastiveLoss(scheduler, loss="sigmoid").eval() for _ in "ab")
    assert torch.equal(biased(image, text, logit_bias=scale), plain(image, text, logit_bias=8.0))


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("name", ["logit_scale", "logit_bias"])
@pytest.mark.parametrize(
    "value", ["10", torch.ones(2), torch.ones(()) * 1j, torch.empty(0), {}], ids=repr
)
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be a (real )?number"):
        ScheduledContrastiveLoss(loss="sigmoid")(torch.eye(3), torch.eye(3), **{name: value})


def test_a_scale_below_zero_in_a_stack_is_refused():
    for scheduler in (Fixed(), Scheduler(batch_shape=(2,))):
        with pytest.raises(ValueError, match=r"^logit_scale must be 1 / τ, .* tensor.*-3"):
            ScheduledContrastiveLoss(scheduler)(
                *pairs(14, leading=(2,)), torch.tensor([10.0, -3.0])
            )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", [("variance", "direction"), ("variance", "sharpness")])
def test_every_learned_number_has_a_gradient(name, kind):
    """Data-parallel training stops at a parameter without one."""
    image, text = (x.float() for x in pairs(16))
    loss = ScheduledContrastiveLoss(Scheduler(*kind), loss=name)
    for leading in ((), (2,)):
        scale, bias = (torch.full(leading, v, requires_grad=True) for v in (5.0, -2.0))
        loss.scheduler = Scheduler(*kind, batch_shape=leading)
        both = (x.expand(*leading, *x.shape) for x in (image, text))
        group = torch.arange(len(image))
        if name in ("info_nce", "label_smoothing", "rince"):
            group = None
        loss(*both, scale, logit_bias=bias, group=group).sum().backward()
        assert scale.grad.isfinite().all()
        assert bias.grad.isfinite().all()


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("given", [0.07, "variance", Scheduler, len], ids=repr)
def test_a_scheduler_that_is_no_module_is_refused_when_it_is_given(given):
    with pytest.raises(ValueError, match=r"^scheduler must be a module, such as Scheduler"):
        ScheduledContrastiveLoss(given)
    loss = ScheduledContrastiveLoss()
    loss.scheduler = None
    with pytest.raises(ValueError, match=r"^scheduler must be a module"):
        loss(torch.eye(3), torch.eye(3))


def test_a_constant_that_is_changed_in_place_to_what_no_rule_has_is_named():
    image, text = (x.float() for x in pairs(17))
    for signal, said in (("variance", "beta"), ("entropy", "beta"), ("variance", "gamma")):
        loss = ScheduledContrastiveLoss(Scheduler(signal))
        getattr(loss.scheduler, said).fill_(1.0 if said == "beta" else math.nan)
        with pytest.raises(ValueError, match=f"^{said} must be "):
            loss(image, text)


def test_groups_may_be_lists_and_arrays_and_nothing_but_integers():
    image, text = (x.float() for x in pairs(18))
    rows = len(image)
    groups = [i // 2 for i in range(rows)]
    loss = ScheduledContrastiveLoss(Fixed())
    expected = loss(image, text, group=torch.tensor(groups))
    for chosen in (groups, tuple(groups), np.array(groups), torch.tensor(groups).to(torch.uint16)):
        assert torch.equal(loss(image, text, group=chosen), expected)
        named = multi_positive(image @ text.T, 0.1, group=chosen).mean()
        torch.testing.assert_close(named, expected)
    wrong = [list("abcdefghi")[:rows], np.array(groups, dtype=str), [0.5] * rows, [True] * rows, 3]
    for chosen in wrong:
        for call in (loss, lambda i, t, group: multi_positive(i @ t.T, 0.1, group=group)):
            with pytest.raises(ValueError, match=r"^group must be .* of integers"):
                call(image, text, group=chosen)
    with pytest.raises(ValueError, match=r"^group has one group only"):
        ScheduledContrastiveLoss(loss="decoupled")(image, text, group=[7] * rows)


@pytest.mark.parametrize(
    "name", [n for n, loss in LOSSES.items() if loss.grouped or loss.takes_group]
)
def test_each_run_of_a_stack_may_have_groups_of_its_own(name):
    image, text = pairs(19, size=6, leading=(2,))
    group = torch.tensor([[0, 0, 1, 1, 2, 2], [5, 4, 5, 4, 3, 3]])
    stack = ScheduledContrastiveLoss(Scheduler(batch_shape=(2,)), loss=name)
    together = stack(image, text, group=group)
    for run in range(2):
        alone = ScheduledContrastiveLoss(loss=name)(image[run], text[run], group=group[run])
        torch.testing.assert_close(together[run], alone)


def test_a_skipped_pair_that_is_not_finite_is_named():
    image = torch.tensor([[1.0, math.nan]])
    with pytest.raises(ValueError, match=r"^image_embeddings holds 1 numbers"):
        ScheduledContrastiveLoss(skip_single=True)(image, torch.ones(1, 2))


def test_of_the_scales_of_a_stack_the_first_that_is_not_finite_is_located():
    said = r"^logit_scale holds 1 numbers that are not finite, the first at \[1\]; the model"
    with pytest.raises(ValueError, match=said):
        ScheduledContrastiveLoss(Fixed())(*pairs(14, leading=(2,)), torch.tensor([1.0, math.nan]))


def test_all_that_is_not_finite_is_counted_and_the_first_is_located():
    image, text = (x.float() for x in pairs(11))
    image[3, 1] = image[5, 0] = math.nan
    text[0, 0] = math.inf
    with pytest.raises(ValueError, match=r"^image_embeddings holds 2 numbers .* at \[3, 1\]; "):
        ScheduledContrastiveLoss(Fixed())(image, text)


def test_unchecked_numbers_stop_nothing_in_evaluation_either():
    image, text = (x.float() for x in pairs(12))
    image[0, 0] = math.nan
    loss = ScheduledContrastiveLoss(check_finite=False)
    assert not loss(image, text).isfinite()
    assert loss.weights.tolist() == [1, 1]
    assert not loss.scheduler.average.any()
    loss.eval().check_finite = True
    with pytest.raises(ValueError, match="image_embeddings holds 1 numbers"):
        loss(image, text)


def anneal(scheduler, step):
    scheduler.gamma = 1.0 + step
    scheduler.beta.fill_(0.5 / (1 + step))


CHANGES = {
    "none": lambda scheduler: None,
    "in place": lambda scheduler: scheduler.gamma.fill_(-50.0),
    "a number": lambda scheduler: setattr(scheduler, "beta", 0.25),
    "a tensor": lambda scheduler: setattr(scheduler, "gamma", torch.tensor(7)),
    "a longer warm-up": lambda scheduler: setattr(scheduler, "warmup", 6),
    "annealed": lambda scheduler: anneal(scheduler, int(scheduler.steps)),
    "a state": lambda scheduler: scheduler.load_state_dict(
        {"average": torch.ones(2), "reference": torch.zeros(2), "steps": torch.tensor(3)}
    ),
    "half": lambda scheduler: scheduler.half(),
    "bfloat16": lambda scheduler: scheduler.to(torch.bfloat16),
    "float": lambda scheduler: scheduler.float(),
}
REPLACEMENTS = {
    "a copy": copy.deepcopy,
    "another": lambda _: Scheduler(gamma=3.0, beta=0.5, warmup=1).double(),
}


def changed(change, scheduler):
    if change in REPLACEMENTS:
        return REPLACEMENTS[change](scheduler)
    CHANGES[change](scheduler)
    return scheduler


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("change", [*CHANGES, *REPLACEMENTS])
def test_the_loss_is_the_schedulers_whatever_is_changed(warmup, change):
    """Two steps, a change, and four more: on a CPU and by what a GPU does, as forward does."""
    study = Scheduler(gamma=5.0, beta=0.5, warmup=warmup).double()
    loss = ScheduledContrastiveLoss(copy.deepcopy(study))
    for seed in range(6):
        if seed == 2 or (seed > 2 and change == "annealed"):
            study, loss.scheduler = changed(change, study), changed(change, loss.scheduler)
        image, text = pairs(seed)
        copied = copy.deepcopy(study)
        found, schedule = loss(image, text), study(image @ text.T, 0.1)
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if study.average.dtype == torch.float32 else {}
        torch.testing.assert_close(found, contrastive_loss(image @ text.T, schedule), **tolerance)
        torch.testing.assert_close(loss.weights.double(), schedule.weights.double(), **tolerance)
        for name, value in study.state_dict().items():
            torch.testing.assert_close(loss.scheduler.state_dict()[name], value, **tolerance)
        similarity = image @ text.T
        elsewhere = copied._advance(
            mean_variances(similarity), similarity, Fixed()(similarity, 1.0)
        )
        expected = schedule.weights.double()
        torch.testing.assert_close(elsewhere.weights.double(), expected, **tolerance)


@pytest.mark.parametrize(
    "make",
    [
        Fixed,
        lambda: Scheduler("entropy", gamma=9.0),
        lambda: Scheduler("variance", "sharpness"),
        lambda: Scheduler("spread", "magnitude", beta=0.5),
        lambda: Trace(torch.tensor([[1.5, 0.5]])),
        lambda: DynamicWeightAverage(period=1),
        lambda: UncertaintyWeights(),
    ],
)
def test_a_scheduler_may_be_replaced_at_any_time(make):
    loss, twin = ScheduledContrastiveLoss(Scheduler(gamma=2.0)), ScheduledContrastiveLoss(make())
    scale = torch.tensor(9.0, requires_grad=True)
    loss(*(x.float() for x in pairs(0)), scale)
    loss.scheduler = make()
    for seed in (1, 2):
        batch = [x.float() for x in pairs(seed)]
        found = loss(*batch, scale)
        torch.testing.assert_close(found, twin(*batch, scale))
        # A scale stays learned unless the scheduler sets the temperature itself.
        scale.grad = None
        (found + 0 * scale).backward()
        assert bool(scale.grad == 0) == loss.scheduler.sets_temperature


class Doubled(Scheduler):
    """A subclass with its own forward."""

    def forward(self, similarity, temperature):
        schedule = super().forward(similarity, temperature)
        return schedule._replace(weights=2 * schedule.weights)


def test_the_forward_of_a_subclass_is_called():
    image, text = (x.float() for x in pairs(4))
    plain = ScheduledContrastiveLoss(Scheduler(gamma=4.0))(image, text)
    torch.testing.assert_close(ScheduledContrastiveLoss(Doubled(gamma=4.0))(image, text), 2 * plain)


def test_a_compiled_loss_and_a_stack_obey_an_annealed_constant():
    alone, inner = ScheduledContrastiveLoss(), ScheduledContrastiveLoss()
    compiled = torch.compile(inner, fullgraph=True, backend="eager")
    stack = ScheduledContrastiveLoss(Scheduler(batch_shape=(1,)))
    for step in range(3):
        for loss in (alone, inner, stack):
            anneal(loss.scheduler, 10 * step)
        image, text = (x.float() for x in pairs(step))
        expected = alone(image, text)
        torch.testing.assert_close(compiled(image, text), expected)
        torch.testing.assert_close(stack(image[None], text[None])[0], expected)


def test_extreme_exponents_give_all_the_weight_to_one_direction():
    image, text = (x.float() for x in pairs(13))
    plain = Scheduler()(image @ text.T, 0.1).weights
    for gamma in (1e30, -1e30):
        loss = ScheduledContrastiveLoss(Scheduler(gamma=gamma))
        loss(image, text)
        greater = plain.argmax() if gamma > 0 else plain.argmin()
        assert loss.weights[greater] == 2
        assert loss.weights.sum() == 2


def test_only_the_schedulers_numbers_stay_in_single_precision():
    loss = ScheduledContrastiveLoss(Scheduler("spread", "magnitude", warmup=2))
    loss.head = torch.nn.Linear(3, 3)
    loss.half()
    assert loss.head.weight.dtype == torch.float16
    state = loss.scheduler.state_dict().values()
    assert {value.dtype for value in state} == {torch.float32, torch.int64}
    assert loss.double().scheduler.average.dtype == torch.float64


class Wrapped(torch.nn.Module):
    """A module that wraps a scheduler and has its own buffer."""

    def __init__(self):
        super().__init__()
        self.inner = Scheduler("entropy")
        self.register_buffer("seen", torch.ones(()))

    def forward(self, similarity, temperature):
        return self.inner(similarity, temperature)


def test_numbers_of_nested_schedulers_stay_in_single_precision_under_their_names():
    loss = ScheduledContrastiveLoss(Wrapped())
    names = list(loss.state_dict())
    loss.half()
    assert list(loss.state_dict()) == names
    assert {value.dtype for value in loss.state_dict().values()} == {torch.float32, torch.int64}
    assert loss.scheduler.inner.gamma.dtype == torch.float32


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize(
    "make", [Scheduler, lambda: DynamicWeightAverage(period=9), lambda: Trace(torch.rand(3, 2))]
)
def test_a_state_that_was_saved_in_half_precision_is_loaded_in_single(make, assign):
    saved = make().state_dict()
    halves = {name: v.half() if v.is_floating_point() else v for name, v in saved.items()}
    module = make()
    module.load_state_dict(halves, assign=assign)
    assert {v.dtype for v in module.state_dict().values()} == {torch.float32, torch.int64}
    assert all(v.dtype in (torch.float16, torch.int64) for v in halves.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scheduler_made_or_converted_with_a_model_in_half_precision_keeps_its_constants(dtype):
    def make():
        trace = Trace(torch.tensor([[1.001, 0.999]], dtype=torch.float32, device="cpu"))
        queries = IndividualTemperatures(3, 0.1, 0.5, step=0.03)
        rules = [Scheduler(beta=0.999), DynamicWeightAverage(period=3001), GradNorm(step=0.025)]
        return torch.nn.ModuleList([*rules, queries, trace, CosineTemperature(0.1, 0.5, 3001)])

    expected = {name: value.clone() for name, value in make().named_buffers()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made = make()
    finally:
        torch.set_default_dtype(before)
    for rules in (made, make().to(dtype)):
        torch.testing.assert_close(dict(rules.named_buffers()), expected, rtol=0, atol=0)
    with torch.device("meta"):  # As of a library that makes a model before it loads one.
        made = make()
    torch.testing.assert_close(dict(made.named_buffers()), expected, rtol=0, atol=0)


def test_two_pairs_are_a_batch():
    check_embeddings(torch.ones(2, 1), torch.ones(2, 1))
    check_embeddings(torch.ones(5, 2, 3).half(), torch.ones(5, 2, 3))


def test_without_a_group_of_processes_nothing_is_gathered():
    image, text = pairs(0)
    assert all(a is b for a, b in zip(gather_pairs(image, text), (image, text), strict=True))
    assert ScheduledContrastiveLoss().gather is False
    for wrong in (text[:-1], text[0]):
        with pytest.raises(ValueError, match=r"\(\.\.\., b, d\) both"):
            gather_pairs(image, wrong)


def test_losses_of_another_batch_are_refused():
    schedule = Fixed()(torch.eye(4), 0.1)
    for shape in [(2, 1), (1, 4), (4,)]:
        with pytest.raises(ValueError, match=r"\(\.\.\., 2, B\)"):
            weighted_mean(torch.ones(shape), schedule)


def test_a_scale_below_one_is_a_scale():
    image, text = pairs(1)
    warm = ScheduledContrastiveLoss(Fixed())(image, text, logit_scale=0.5)
    assert float(warm) == pytest.approx(
        float(contrastive_loss(image @ text.T, Fixed()(image @ text.T, 2.0)))
    )


@pytest.mark.parametrize(("length", "scale"), [(1e20, 10.0), (1e3, 3e38), (1e30, 10.0)])
@pytest.mark.parametrize("scheduler", [Fixed(), Scheduler(), Scheduler("entropy")])
def test_a_loss_that_overflows_though_its_arguments_do_not_is_told_apart(length, scale, scheduler):
    image = length * torch.eye(3)
    said = (
        rf"^the loss is not finite though .* smaller logit_scale .*; it is {re.escape(str(scale))}"
    )
    with pytest.raises(ValueError, match=said):
        ScheduledContrastiveLoss(scheduler)(image, image, logit_scale=scale)


def test_a_stack_with_a_run_that_is_not_finite_is_refused_and_a_sound_one_is_not():
    image, text = pairs(2, leading=(3,))
    loss = ScheduledContrastiveLoss(Scheduler(batch_shape=(3,)).double())
    assert loss(image, text).shape == (3,)
    image[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="image_embeddings holds 1 numbers"):
        loss(image, text)
    assert not _is_finite(torch.tensor([1.0, math.inf]))
    assert _is_finite(torch.tensor([1.0, 2.0]))
    assert not _is_finite(torch.tensor(math.nan))
    assert _is_finite(torch.tensor(1.0))
