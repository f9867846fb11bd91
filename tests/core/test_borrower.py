"""What a borrower relies on: every public name refuses bad arguments by name, and is typed."""

import inspect
import math
import os
import subprocess
import sys
import typing
from functools import partial

import pytest
import torch

from lib import losses, metrics, rivals, schedulers
from lib.losses import ScheduledContrastiveLoss, contrastive_loss, gather_pairs, weighted_mean
from lib.metrics import MetricsError
from lib.rivals import GradNorm, IndividualTemperatures
from lib.schedulers import Fixed, Schedule, Scheduler, Trace

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (schedulers, losses, metrics, rivals)
    for name in module.__all__
}
NEUTRAL = Schedule(torch.ones(2), torch.ones(2, 3), torch.tensor(0.1))
PAIRS = torch.arange(3)


def neutral_loss(similarity, temperature):
    return contrastive_loss(similarity, NEUTRAL._replace(temperature=torch.tensor(temperature)))


# Each public name that reads similarities (..., B, B): `read` calls it.
SIGNALS = {
    "lib.schedulers.variance": schedulers.variance,
    "lib.schedulers.entropy": schedulers.entropy,
    "lib.schedulers.spread": schedulers.spread,
    "lib.schedulers.margin": schedulers.margin,
    "lib.schedulers.mean_variances": lambda similarity, _: schedulers.mean_variances(similarity),
}
LOSSES = {
    "lib.losses.info_nce": losses.info_nce,
    "lib.losses.label_smoothing": partial(losses.label_smoothing, epsilon=0.1),
    "lib.losses.decoupled": losses.decoupled,
    "lib.losses.hardest_negatives": partial(losses.hardest_negatives, margin=0.2),
    "lib.losses.sigmoid": partial(losses.sigmoid, bias=-1.0),
    "lib.losses.multi_positive": losses.multi_positive,
    "lib.losses.rince": partial(losses.rince, q=0.5),
    "lib.losses.Loss": losses.LOSSES["info_nce"],
    "lib.losses.contrastive_loss": neutral_loss,
}
SCHEDULERS = {
    "lib.schedulers.Fixed": lambda batch_shape: Fixed(),
    "lib.schedulers.Scheduler": Scheduler,
    "lib.schedulers.Scheduler.quick": Scheduler,
    "lib.schedulers.Scheduler by entropy": partial(Scheduler, "entropy", "sharpness"),
    "lib.schedulers.Trace": lambda batch_shape: Trace(torch.ones(*batch_shape, 1, 2)),
    "lib.rivals.CosineTemperature": partial(rivals.CosineTemperature, 0.1, 0.5, 4),
    "lib.rivals.UncertaintyWeights": rivals.UncertaintyWeights,
    "lib.rivals.AnalyticUncertaintyWeights": rivals.AnalyticUncertaintyWeights,
    "lib.rivals.DynamicWeightAverage": partial(rivals.DynamicWeightAverage, period=1),
    "lib.rivals.IndividualTemperatures": partial(IndividualTemperatures, 5, 0.1, 0.5),
}
READERS = [*SIGNALS, *LOSSES, *SCHEDULERS]
NO_TEMPERATURE = {
    "lib.losses.hardest_negatives", "lib.rivals.CosineTemperature",
    "lib.rivals.IndividualTemperatures", "lib.schedulers.margin", "lib.schedulers.mean_variances",
    "lib.schedulers.spread", "lib.schedulers.variance",
}  # fmt: skip


def read(name, similarity, temperature):
    """Call what the name stands for, with a run for each of the similarities' leading axes."""
    runs = similarity.shape[:-2]
    pairs = PAIRS.expand(*runs, 3)
    if name in SIGNALS:
        return SIGNALS[name](similarity, temperature)
    if name in LOSSES:
        group = {"group": pairs} if name == "lib.losses.multi_positive" else {}
        return LOSSES[name](similarity, temperature, **group)
    scheduler = SCHEDULERS[name](batch_shape=runs)
    if name == "lib.schedulers.Scheduler.quick":
        return scheduler.quick(similarity, temperature)
    individual = name == "lib.rivals.IndividualTemperatures"
    return scheduler(similarity, pairs if individual else temperature)


# Each public metric, then its arguments that hold numbers.
METRICS = {
    "lib.metrics.alignment": (metrics.alignment, "image", "text"),
    "lib.metrics.collapsed": (metrics.collapsed, "embeddings"),
    "lib.metrics.hubness": (partial(metrics.hubness, k=1), "similarity"),
    "lib.metrics.k_occurrence": (partial(metrics.k_occurrence, k=1), "similarity"),
    "lib.metrics.modality_gap": (metrics.modality_gap, "image", "text"),
    "lib.metrics.nearest": (partial(metrics.nearest, k=1), "similarity"),
    "lib.metrics.neighbour_purity": (
        partial(metrics.neighbour_purity, query_label=[0, 1], gallery_label=[0, 1, 2], k=1),
        "similarity",
    ),
    "lib.metrics.ranks": (partial(metrics.ranks, caption_owner=[0, 1, 1]), "similarity"),
    "lib.metrics.relative_alignment": (metrics.relative_alignment, "image", "text"),
    "lib.metrics.retrieval_metrics": (
        partial(metrics.retrieval_metrics, caption_owner=[0, 1, 1]),
        "similarity",
    ),
    "lib.metrics.spread": (metrics.spread, "embeddings"),
    "lib.metrics.uniformity": (metrics.uniformity, "embeddings"),
}
for owned in ("ranks_from_embeddings", "recall_at_k", "retrieval_metrics_from_embeddings"):
    call = partial(getattr(metrics, owned), caption_owner=[0, 1])
    METRICS[f"lib.metrics.{owned}"] = (call, "image", "text")

# Public names that read no numbers, or have tests of their own below.
OTHERS = {
    "lib.schedulers": "ACTUATORS SIGNALS Signal Schedule",
    "lib.losses": "LOSSES ScheduledContrastiveLoss cached_backward gather_pairs weighted_mean",
    "lib.rivals": "GradNorm",
    "lib.metrics": "COLLAPSE_SPREAD DirectionMetrics MetricsError Array Values PerQuery Ranks "
    "RetrievalMetrics skewness",
}


def test_no_public_name_is_left_out():
    others = {f"{module}.{name}" for module in OTHERS for name in OTHERS[module].split()}
    called = {name.removesuffix(" by entropy") for name in (*READERS, *METRICS)}
    assert called - {"lib.schedulers.Scheduler.quick"} | others == set(PUBLIC)


def refused(call, *arguments):
    """Return what a call is refused with, in the order of words that a user reads."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call(*arguments)
    return str(caught.value)


@pytest.mark.tries("bad shape")
@pytest.mark.parametrize(
    "similarity",
    [torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 1), torch.zeros(3, 3).long()],
    ids=["vector", "oblong", "single pair", "integers"],
)
@pytest.mark.parametrize("name", READERS)
def test_similarities_without_a_batch_of_pairs_are_named(name, similarity):
    assert refused(read, name, similarity, 0.1).startswith("similarity ")


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*LOSSES, *SCHEDULERS])
def test_similarities_that_are_not_finite_are_named(name, value):
    similarity = torch.eye(3)
    similarity[1, 2] = value
    said = refused(read, name, similarity, 0.1)
    assert said.startswith("similarity holds 1 numbers that are not finite, the first at [1, 2]")


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_hides_no_number_that_is_not_finite(name):
    similarity = torch.eye(3)
    similarity[1, 2] = math.nan
    assert SIGNALS[name](similarity, 0.1).isnan().any()


@pytest.mark.tries("bad number")
@pytest.mark.parametrize(
    "name", ["schedulers.Scheduler", "rivals.DynamicWeightAverage", "rivals.IndividualTemperatures"]
)
def test_a_refused_step_leaves_the_state(name):
    rule = SCHEDULERS[f"lib.{name}"](batch_shape=())
    second = PAIRS if name == "rivals.IndividualTemperatures" else 0.1
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    refused(rule, torch.full((3, 3), math.nan), second)
    for key, value in rule.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", [*LOSSES, *SCHEDULERS])
def test_in_a_stack_a_run_that_has_diverged_leaves_its_neighbours_alone(name):
    together = read(name, torch.stack([torch.full((3, 3), math.nan), torch.eye(3)]), 0.1)
    alone = read(name, torch.eye(3), 0.1)
    if isinstance(alone, torch.Tensor):
        together, alone = (together,), (alone,)
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[1], one)


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(set(READERS) - NO_TEMPERATURE))
def test_a_temperature_that_nothing_can_be_divided_by_is_named(name, temperature):
    for tau in (temperature, torch.tensor(temperature)):
        if name == "lib.losses.contrastive_loss" and isinstance(tau, torch.Tensor):
            continue  # A schedule holds tensors anyway.
        said = refused(read, name, torch.eye(3), tau)
        assert said.startswith("temperature must be positive and finite; it is ")


TEMPERATURES = IndividualTemperatures(3, 0.1, 0.5)


@pytest.mark.tries("bad shape")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: losses.multi_positive(torch.eye(3), 0.1, group=PAIRS[:2]), "group must be"),
        (lambda: weighted_mean(torch.ones(3), NEUTRAL), "losses must be (..., 2, B)"),
        (lambda: weighted_mean(torch.ones(3, 3), NEUTRAL), "losses must be (..., 2, B)"),
        (lambda: weighted_mean(torch.ones(2, 4), NEUTRAL), "losses must be (..., 2, B)"),
        (lambda: gather_pairs(torch.ones(2, 3), torch.ones(3, 3)), "image and text must be"),
        (lambda: gather_pairs(torch.ones(3), torch.ones(3)), "image and text must be"),
        (lambda: GradNorm()(torch.ones(3), []), "losses must be (..., 2)"),
        (lambda: GradNorm()(torch.tensor([1.0, math.nan]), []), "losses holds 1 numbers"),
        (
            lambda: TEMPERATURES(torch.eye(2), 0.1),
            "index must be a tensor; it is of <class 'float'",
        ),
        (
            lambda: TEMPERATURES(torch.eye(2), torch.tensor([0, 3])),
            "index must name training pairs, 0 to 2; it goes from 0 to 3",
        ),
        (
            lambda: TEMPERATURES(torch.eye(2), torch.tensor([-1, 2])),
            "index must name training pairs",
        ),
        (lambda: Scheduler(gamma="1"), "gamma must be a number or a tensor; it is '1'"),
        (lambda: Scheduler(beta=None), "beta must be a number or a tensor; it is None"),
        (lambda: setattr(Scheduler(), "gamma", None), "gamma must be a number or a tensor"),
        (lambda: Scheduler().quick([[1.0]], 0.1), "similarity must be a tensor; it is of <class"),
        (lambda: losses.info_nce(torch.eye(3), torch.ones(2)), "temperature must be a number, or"),
        (lambda: losses.info_nce(torch.eye(3), -torch.ones(1)), "temperature must be positive"),
        (lambda: losses.rince(torch.eye(3), 0.1, torch.ones(2)), "q must be a number, or"),
        (
            lambda: losses.ScheduledContrastiveLoss()([[1.0]], torch.eye(3)),
            "image_embeddings must be a tensor; it is of <class 'list'>",
        ),
        (
            lambda: losses.cached_backward(lambda e: e.sum(), [len], [PAIRS], 1.5),
            "micro_batch must be a whole number from 1 on; it is 1.5",
        ),
        (
            lambda: torch.no_grad()(losses.cached_backward)(lambda e: e.sum(), [len], [PAIRS], 1),
            "cached_backward computes gradients",
        ),
        (lambda: Scheduler(gamma=torch.ones(3)), "gamma must be a number or of batch_shape=()"),
        (lambda: GradNorm(torch.ones(3), batch_shape=(2,)), "alpha must be a number or of batch"),
        (
            lambda: IndividualTemperatures(9, torch.ones(2), 1.0, batch_shape=(3,)),
            "start must be a number or of batch_shape=(3,)",
        ),
    ],
)
def test_arguments_that_fit_no_other_are_named(call, said):
    assert refused(call).startswith(said)


def test_embeddings_that_are_not_finite_are_named_by_every_scheduler():
    """In the loss's own words, before a scheduler sees the similarities."""
    image = torch.eye(3)
    image[1, 2] = math.nan
    for name, make in SCHEDULERS.items():
        said = refused(ScheduledContrastiveLoss(make(batch_shape=())), image, torch.eye(3))
        assert said.startswith("image_embeddings holds 1 numbers"), name


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_name_numbers_that_are_not_finite(name, value):
    call, *arguments = METRICS[name]
    for place, argument in enumerate(arguments):
        given = [torch.eye(2, 3) for _ in arguments]
        given[place][1, 2] = value
        said = refused(call, *given)
        assert said.startswith(f"{argument} holds 1 numbers that are not finite"), said
        assert "[1, 2]" in said


@pytest.mark.tries("bad shape")
@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_name_arguments_of_a_wrong_shape(name, shape):
    call, *arguments = METRICS[name]
    for place, argument in enumerate(arguments):
        given = [torch.eye(2, 3) for _ in arguments]
        given[place] = torch.zeros(shape)
        with pytest.raises(MetricsError, match=rf"^{argument} "):
            call(*given)


@pytest.mark.tries("bad shape")
@pytest.mark.parametrize(
    ("image", "text"),
    [((2, 3), (2, 4)), ((2, 2, 3), (2, 3)), ((2, 3), (1, 3))],
    ids=["width", "batch axes", "rows"],
)
@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if len(entry) == 3])
def test_metrics_name_embeddings_that_do_not_fit(name, image, text):
    """An alignment of two images with one caption is no number, though torch would broadcast."""
    if text[-2] == 1 and name == "lib.metrics.modality_gap":
        return  # Of any number of either.
    said = refused(METRICS[name][0], torch.ones(image), torch.ones(text))
    assert said.startswith(("image", "caption_owner"))


@pytest.mark.tries("bad number")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: metrics.uniformity(torch.ones(1, 3)), "embeddings must be two or more"),
        (lambda: metrics.uniformity(torch.eye(3), t=0.0), "t must be positive and finite"),
        (lambda: metrics.skewness([1.0, math.nan]), "values holds 1 numbers"),
        (lambda: metrics.skewness([]), "values is empty"),
    ],
)
def test_other_arguments_of_metrics_are_named(call, said):
    with pytest.raises(MetricsError, match=f"^{said}"):
        call()


def annotations(value):
    """Yield the annotations of a function, or of a class's constructor and public methods."""
    if inspect.isclass(value):
        for name, member in vars(value).items():
            if inspect.isfunction(member) and (name == "__init__" or name[0] != "_"):
                yield from annotations(member)
    elif inspect.isfunction(value):
        yield from typing.get_type_hints(value).items()


@pytest.mark.parametrize("name", PUBLIC)
def test_no_public_signature_says_any(name):
    for argument, hint in annotations(PUBLIC[name]):
        assert hint is not typing.Any, argument


BORROWED = """
from typing import assert_type

import torch
from torch import Tensor

from lib.adapters.open_clip import ScheduledClipLoss
from lib.losses import LOSSES, ScheduledContrastiveLoss, info_nce, weighted_mean
from lib.metrics import RetrievalMetrics, recall_at_k, retrieval_metrics, spread
from lib.rivals import GradNorm, UncertaintyWeights
from lib.schedulers import Fixed, Schedule, Scheduler, Trace

similarity = torch.eye(3)
schedule = Scheduler("variance", "direction", gamma=2.0)(similarity, 0.1)
assert_type(schedule, Schedule)
scheduler = Scheduler()
scheduler.gamma = 2.0
assert_type(scheduler.gamma, Tensor)
assert_type(Fixed()(similarity, torch.tensor(0.1)), Schedule)
assert_type(Trace(torch.ones(1, 2))(similarity, 0.1), Schedule)
assert_type(UncertaintyWeights()(similarity, 0.1), Schedule)
assert_type(GradNorm()(torch.ones(2), [torch.ones(2)]), Tensor)
assert_type(weighted_mean(info_nce(similarity, 0.1), schedule), Tensor)
assert_type(LOSSES["sigmoid"](similarity, 0.1), Tensor)
loss = ScheduledContrastiveLoss(Scheduler())(similarity, similarity, 10.0)
assert_type(loss, Tensor)
assert_type(ScheduledClipLoss()(similarity, similarity, loss), Tensor)
assert_type(ScheduledClipLoss()(similarity, similarity, loss, output_dict=True), dict[str, Tensor])
assert_type(recall_at_k([[1.0, 0.0]], similarity.numpy(), [0, 0, 0]), RetrievalMetrics)
chunks = (similarity[row : row + 1] for row in range(3))
assert_type(recall_at_k(chunks, similarity, [0, 1, 2]), RetrievalMetrics)
assert_type(retrieval_metrics(similarity, torch.arange(3)).as_dict(), dict[str, float])
assert_type(spread(similarity.numpy()), Tensor)

# What can't work is an error before anything runs.
Scheduler()(similarity)  # type: ignore[call-arg]
Scheduler(gama=2.0)  # type: ignore[call-arg]
Scheduler(gamma="high")  # type: ignore[arg-type]
scheduler.gamma = "high"  # type: ignore[assignment]
ScheduledContrastiveLoss()(similarity)  # type: ignore[call-arg]
info_nce(similarity, None)  # type: ignore[arg-type]
retrieval_metrics(3.0, [0])  # type: ignore[arg-type]
"""


def test_a_strict_checker_sees_a_borrowers_types(tmp_path, root):
    """Calls of modules too, whose types torch itself leaves open."""
    assert (root / "lib" / "py.typed").is_file()
    (tmp_path / "borrowed.py").write_text(BORROWED)
    checked = subprocess.run(
        [sys.executable, *["-m", "mypy", "--strict", "borrowed.py", "--cache-dir", "cache"]],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
