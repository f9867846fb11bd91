"""Rivals in training: a run in a stack is the run alone, and each equals its paper's own loop."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import PlainRun, update
from pydantic import ValidationError
from small_runs import RIVALS, assert_same_numbers, config, fresh
from synthetic import synthetic_features
from torch import Tensor, nn
from torch.nn import functional as F

from lib.runs import STEP_COLUMNS, RunConfig, RunRecord, ScheduleConfig
from lib.runs.schedules import (
    AnalyticUncertaintyConfig,
    CosineConfig,
    DynamicWeightAverageConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    UncertaintyConfig,
)
from lib.training import train
from lib.training.data import Pairs, TrainingData

CPU = torch.device("cpu")
TAU = 0.2

OTHERS = [
    config(),
    config(seed=1, schedule=CosineConfig(low=0.2, high=0.3, period=4)),
    config(seed=1, schedule=UncertaintyConfig(rate=0.05)),
    config(schedule=UncertaintyConfig(rate=0.01)),
    config(seed=1, schedule=AnalyticUncertaintyConfig(softness=3.0), learn_temperature=True),
    config(seed=1, schedule=DynamicWeightAverageConfig(softness=2.0, period=2)),
    config(seed=1, schedule=GradNormConfig(alpha=0.0, step=0.02), loss="decoupled"),
    config(seed=1, schedule=IndividualTemperatureConfig(rho=0.3, step=0.01), temperature=0.1),
    config(seed=1, loss="sigmoid", loss_constant=-4.0),
    config(seed=1, loss="multi_positive", captions_at_once=3, temperature=0.1),
]


@pytest.fixture(scope="module")
def together(features, tmp_path_factory) -> dict[str, RunRecord]:
    # All at once, so that stacks hold every kind of neighbour.
    store = fresh(tmp_path_factory.mktemp("together"), "runs")
    train([*RIVALS.values(), *OTHERS][::-1], store=store, features=features, device="cpu")
    return {name: store.get(rival) for name, rival in RIVALS.items()}


def columns(record: RunRecord, *names: str) -> np.ndarray:
    return record.steps[:, [STEP_COLUMNS.index(name) for name in names]]


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_in_a_stack_equals_the_rival_alone_bit_for_bit(name, together, train_small):
    assert_same_numbers(*train_small([RIVALS[name]]), together[name])


# Each rival as its paper defines it, for one run


class Plain:
    """State of one run of a rival; ``loss`` is what its paper minimises, up to a factor."""

    def __init__(self, heads: nn.ModuleList) -> None:
        self.heads = heads
        self.groups: list[dict] = []
        self.weights, self.temperature = [1.0, 1.0], TAU

    def directions(self, similarity: Tensor, **options) -> list[Tensor]:
        label = torch.arange(len(similarity))
        both = similarity / self.temperature, similarity.T / self.temperature
        return [F.cross_entropy(logits, label, **options) for logits in both]

    def combine(self, losses: list[Tensor]) -> Tensor:
        return sum(w * ell for w, ell in zip(self.weights, losses, strict=True)) / 2

    def loss(self, similarity: Tensor, image: np.ndarray, step: int) -> Tensor:
        raise NotImplementedError


class Cosine(Plain):
    def loss(self, similarity, image, step):
        # 1.5 epochs of 4 steps.
        self.temperature = 0.1 + (0.4 - 0.1) * (1 + math.cos(2 * math.pi * step / 6)) / 2
        return self.combine(self.directions(similarity))


class Uncertainty(Plain):
    def __init__(self, heads):
        super().__init__(heads)
        self.log_sigma = [nn.Parameter(torch.zeros(())) for _ in range(2)]
        # In s = 2 log σ the rate is 0.05; Adam's step does not depend on the scale of a parameter.
        self.groups = [{"params": self.log_sigma, "lr": 0.025, "weight_decay": 0.0}]

    def loss(self, similarity, image, step):
        self.weights = [math.exp(-2 * s.item()) for s in self.log_sigma]
        losses = self.directions(similarity)
        terms = [
            ell / torch.exp(s) ** 2 + torch.log(torch.exp(s))
            for ell, s in zip(losses, self.log_sigma, strict=True)
        ]
        return sum(terms) / 2


class AnalyticUncertainty(Plain):
    def loss(self, similarity, image, step):
        losses = self.directions(similarity)
        shares = [math.exp(1 / ell.item() / 0.5) for ell in losses]
        self.weights = [2 * share / sum(shares) for share in shares]
        return self.combine(losses)


class Average(Plain):
    def __init__(self, heads):
        super().__init__(heads)
        self.epochs: list[list[list[float]]] = []

    def loss(self, similarity, image, step):
        losses = self.directions(similarity)
        if step % 4 == 0:
            self.epochs.append([])
            if len(self.epochs) > 2:
                before, last = (np.mean(epoch, axis=0) for epoch in self.epochs[-3:-1])
                shares = np.exp(last / before / 0.1)
                self.weights = list(2 * shares / shares.sum())
        self.epochs[-1].append([ell.item() for ell in losses])
        return self.combine(losses)


class Balanced(Plain):
    first: list[float]

    def loss(self, similarity, image, step):
        losses = self.directions(similarity)
        if step == 0:
            self.first = [ell.item() for ell in losses]
        weights = torch.tensor(self.weights, requires_grad=True)
        last = [head.weight for head in self.heads]
        norms = []
        for weight, ell in zip(weights, losses, strict=True):
            gradients = torch.autograd.grad(ell, last, retain_graph=True)
            norms.append(weight * torch.cat([g.flatten() for g in gradients]).norm())
        norms = torch.stack(norms)
        rates = torch.tensor([e.item() / f for e, f in zip(losses, self.first, strict=True)])
        target = (norms.mean() * (rates / rates.mean()) ** 1.5).detach()
        (slope,) = torch.autograd.grad((norms - target).abs().sum(), weights)
        total = self.combine(losses)
        moved = weights.detach() - 0.1 * slope
        self.weights = (2 * moved / moved.sum()).tolist()
        return total


class Individual(Plain):
    def __init__(self, heads):
        super().__init__(heads)
        self.tau = {(i, d): TAU for i in range(50) for d in (0, 1)}
        self.u = dict.fromkeys(self.tau, 0.0)
        self.s: dict[tuple[int, int], float] = {}
        self.names: dict[int, int] = {}

    def loss(self, similarity, image, step):
        size, total = len(similarity), torch.zeros(())
        keys = [self.names.setdefault(int(row), len(self.names)) for row in image]
        self.temperature = np.mean([self.tau[key, d] for key in keys for d in (0, 1)])
        value = 0.0
        for d, matrix in enumerate((similarity, similarity.T)):
            for i, row in enumerate(matrix):
                key = (keys[i], d)
                h = torch.cat([row[:i], row[i + 1 :]]) - row[i]
                tau = self.tau[key]
                g = torch.exp(h.detach() / tau).mean().item()
                self.s[key] = 0.1 * self.s[key] + 0.9 * g if key in self.s else g
                p = torch.exp(h.detach() / tau) / self.s[key] / (size - 1)
                total = total + (p * h).sum() / size / 2
                value += tau * (math.log(self.s[key]) + 0.8) / size / 2
                slope = math.log(self.s[key]) + 0.8 - (p * h.detach()).sum().item() / tau
                self.u[key] = 0.1 * self.u[key] + 0.9 * slope
                self.tau[key] = min(max(tau - 0.05 * self.u[key], 0.005), 1.0)
        return total - total.detach() + value


class LabelSmoothing(Plain):
    def loss(self, similarity, image, step):
        return self.combine(self.directions(similarity, label_smoothing=0.2))


class Decoupled(Plain):
    def loss(self, similarity, image, step):
        logits = similarity / TAU
        losses = []
        for matrix in (logits, logits.T):
            rows = [
                torch.log(torch.cat([row[:i], row[i + 1 :]]).exp().sum()) - row[i]
                for i, row in enumerate(matrix)
            ]
            losses.append(torch.stack(rows).mean())
        return self.combine(losses)


class HardestNegatives(Plain):
    def loss(self, similarity, image, step):
        losses = []
        for matrix in (similarity, similarity.T):
            hinge = (0.3 + matrix - matrix.diagonal()[:, None]).clamp(min=0)
            losses.append(hinge.fill_diagonal_(0).max(dim=1).values.mean())
        return self.combine(losses)


class Sigmoid(Plain):
    def __init__(self, heads):
        super().__init__(heads)
        self.t_prime = nn.Parameter(torch.tensor(-math.log(TAU)))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.groups = [{"params": [self.t_prime, self.bias], "weight_decay": 0.0}]

    def loss(self, similarity, image, step):
        self.temperature = math.exp(-self.t_prime.item())
        logits = similarity * self.t_prime.exp() + self.bias
        labels = 2 * torch.eye(len(logits)) - 1
        return -F.logsigmoid(labels * logits).sum() / len(logits)


class MultiPositive(Plain):
    def loss(self, similarity, image, step):
        same = torch.tensor(image[:, None] == image[None, :]).float()
        target = same / same.sum(dim=1, keepdim=True)
        losses = [F.cross_entropy(s / TAU, target) for s in (similarity, similarity.T)]
        return self.combine(losses)


class MoreCaptions(Plain):
    def loss(self, similarity, image, step):
        batches = [similarity[draw::3, draw::3] for draw in range(3)]
        assert all(len(set(image[draw::3])) == len(batches[0]) for draw in range(3))
        losses = [self.directions(batch) for batch in batches]
        return self.combine([sum(both) / 3 for both in zip(*losses, strict=True)])


PLAIN: dict[str, Callable[[nn.ModuleList], Plain]] = {
    "cosine": Cosine,
    "uncertainty": Uncertainty,
    "analytic uncertainty": AnalyticUncertainty,
    "average": Average,
    "GradNorm": Balanced,
    "individual": Individual,
    "label smoothing": LabelSmoothing,
    "decoupled": Decoupled,
    "hardest negatives": HardestNegatives,
    "sigmoid": Sigmoid,
    "multi-positive": MultiPositive,
    "more captions": MoreCaptions,
}


def plain_loop(name: str, data: TrainingData) -> list[list[float]]:
    """Train one run with nn.Linear and a rival of this file; return each step's columns."""
    one = RIVALS[name]
    pairs = data.pairs(one)
    run = PlainRun(one, (data.image[pairs.image], data.text[pairs.all_captions()]))
    rule = PLAIN[name](run.heads)
    optimiser = run.optimiser(rule.groups)
    used = []
    for epoch in range(1, one.epochs + 1):
        rows = data.epoch(one, pairs, epoch)
        size = one.batch_size * one.captions_at_once
        for start in range(0, len(rows[0]), size):
            image, text = (r[start : start + size] for r in rows)
            if len(set(image)) < 2:
                continue
            before = list(rule.weights)
            similarity = run.similarity(data.image[image], data.text[text])
            loss = rule.loss(similarity, image, len(used))
            # GradNorm's weights act at the next step.
            weights = before if name == "GradNorm" else rule.weights
            used.append([loss.item(), *weights, rule.temperature])
            update(optimiser, loss)
    return used


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_agrees_with_its_papers_own_loop(name, together, features):
    used = plain_loop(name, TrainingData.of(features, CPU))
    shown = ("loss", "weight_i2t", "weight_t2i")
    np.testing.assert_allclose(
        columns(together[name], *shown), np.array(used)[:, :3], rtol=2e-3, atol=1e-4
    )
    if name != "hardest negatives":
        temperatures = columns(together[name], "temperature")[:, 0]
        np.testing.assert_allclose(temperatures, np.array(used)[:, 3], rtol=1e-3)


@pytest.mark.parametrize("name", ["uncertainty", "analytic uncertainty", "average", "GradNorm"])
def test_a_weighting_moves_the_weights(name, together):
    weights = columns(together[name], "weight_i2t", "weight_t2i")
    assert np.ptp(weights[:, 0]) > 1e-3
    if name != "uncertainty":
        np.testing.assert_allclose(weights.sum(axis=1), 2, rtol=1e-5)


# The draw of several captions per image


def draw(features, copies: int, epoch: int = 1) -> tuple[Pairs, np.ndarray, np.ndarray]:
    data = TrainingData.of(features, CPU)
    one = config(loss="multi_positive", captions_at_once=copies) if copies > 1 else config()
    pairs = data.pairs(one)
    return pairs, *data.epoch(one, pairs, epoch)


@given(copies=st.integers(2, 7), epoch=st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_an_image_is_drawn_with_distinct_captions_of_its_own(copies, epoch):
    features = synthetic_features()
    pairs, images, captions = draw(features, copies, epoch)
    _, alone, first = draw(features, 1, epoch)
    np.testing.assert_array_equal(images, np.repeat(alone, copies))
    np.testing.assert_array_equal(captions[::copies], first)
    np.testing.assert_array_equal(features.caption_owner[captions], images)
    for row, drawn in zip(alone, captions.reshape(-1, copies), strict=True):
        assert len(set(drawn)) == min(copies, (features.caption_owner == row).sum())
    assert sorted(set(pairs.places(images))) == list(range(50))
    np.testing.assert_array_equal(pairs.image[pairs.places(images)], images)


def test_captions_are_drawn_equally_often(features):
    drawn = np.concatenate([draw(features, 2, epoch)[2] for epoch in range(1, 401)])
    for row in draw(features, 2)[0].image:
        captions = np.flatnonzero(features.caption_owner == row)
        if len(captions) > 1:
            counts = np.array([(drawn == caption).sum() for caption in captions])
            # Two at a time, 400 times; the standard deviation of a count is under 10.
            assert abs(counts - 800 / len(captions)).max() < 50, row


# Configurations


def test_rivals_differ_in_name_and_are_read_back_as_written():
    rivals = [*RIVALS.values(), *OTHERS]
    for rival in rivals:
        again = RunConfig.model_validate_json(rival.model_dump_json())
        assert again == rival
        assert type(again.schedule) is type(rival.schedule)
        assert again.run_id == rival.run_id
    assert len({rival.run_id for rival in rivals}) == len(rivals)
    names = {rival.method for rival in RIVALS.values()}
    assert len(names) == len(RIVALS)
    assert {"GradNorm", "cosine temperature", "individual temperatures"} <= names


def test_new_fields_keep_the_names_of_old_runs():
    """The name is a hash of what differs from the defaults, so defaults must not enter it."""
    dumped = json.loads(config().model_dump_json(exclude_defaults=True))
    assert {"learn_bias", "captions_at_once", "schedule"}.isdisjoint(dumped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn_bias": True}, "learn_bias is for the loss sigmoid; info_nce has no bias"),
        ({"captions_at_once": 2, "loss": "decoupled"}, "must be 1 .* with decoupled it is 2"),
        (
            {"captions_at_once": 2, "schedule": UncertaintyConfig(rate=0.1)},
            "captions_at_once must be 1 with a schedule; with uncertainty weighting it is 2",
        ),
        ({"loss": "multi_positive"}, "captions_at_once must be 2 or more .* it is 1"),
        (
            {"schedule": DynamicWeightAverageConfig(softness=1, period=1), "loss": "decoupled"},
            "dynamic weight average is made for the loss info_nce, not for decoupled",
        ),
        (
            {"schedule": IndividualTemperatureConfig(rho=1, step=0.1), "loss": "sigmoid"},
            "individual temperatures is made for the loss info_nce",
        ),
        (
            {"schedule": CosineConfig(low=0.1, high=0.2, period=3), "learn_temperature": True},
            "either learned or set by cosine temperature",
        ),
        (
            {"schedule": IndividualTemperatureConfig(rho=1, step=0.1), "temperature": 1.5},
            "temperature = 1.5 lies outside 0.005 to 1",
        ),
        ({"schedule": {"softness": 1.0, "rate": 0.1}}, "schedule"),
        ({"schedule": {"rate": 0.0}}, "greater than 0"),
        ({"schedule": {"alpha": -1.0, "step": 0.1}}, "greater than or equal to 0"),
        ({"schedule": {"low": 0.3, "high": 0.2, "period": 1}}, "low = 0.3 must not be above"),
    ],
)
def test_what_no_rival_can_be_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_a_scheduler_may_drive_a_learned_sigmoid_loss():
    """The loss has no directions, so the weights change nothing."""
    schedule = ScheduleConfig(signal="variance", actuator="direction")
    assert config(loss="sigmoid", learn_bias=True, schedule=schedule).method.startswith("variance")
