"""Several captions per image, every loss in the scheduled module, batches without negatives."""

import pytest
import torch
from similarities import unit_pairs as pairs
from torch import nn
from torch.nn import functional as F

from lib.losses import LOSSES, ScheduledContrastiveLoss, multi_positive, weighted_mean
from lib.schedulers import Fixed, Scheduler

GROUP = torch.tensor([4, 9, 4, 1, 1, 1])
TAKERS = ["info_nce", "multi_positive", "decoupled", "hardest_negatives", "sigmoid"]


def negative_log_share(similarity, i, own, tau):
    """Minus the mean log-probability of the matches of row i, term by term."""
    total = sum(torch.exp(s / tau) for s in similarity[i])
    return -sum(torch.log(torch.exp(similarity[i, k] / tau) / total) for k in own) / len(own)


def test_rows_of_one_image_match_each_other():
    image, text = pairs()
    similarity = image @ text.T
    rows = [[k for k in range(6) if GROUP[k] == GROUP[i]] for i in range(6)]
    by_hand = [
        sum(negative_log_share(matrix, i, rows[i], 0.1) for i in range(6)) / 6
        for matrix in (similarity, similarity.T)
    ]
    loss = ScheduledContrastiveLoss(Fixed())(image, text, 10.0, group=GROUP)
    torch.testing.assert_close(loss, sum(by_hand) / 2)


@pytest.mark.parametrize("scheduler", [Fixed, lambda: Scheduler("entropy", gamma=4.0)])
def test_an_image_with_several_captions_is_as_many_rows(scheduler):
    image = pairs()[0]
    text = torch.stack([pairs(seed)[1] for seed in (1, 2, 3)], dim=1)
    several = ScheduledContrastiveLoss(scheduler())(image, text, 5.0)
    rows = ScheduledContrastiveLoss(scheduler())(
        image.repeat_interleave(3, 0),
        text.reshape(18, 8),
        5.0,
        group=torch.arange(6).repeat_interleave(3),
    )
    assert several == rows
    one = ScheduledContrastiveLoss(scheduler())(image, text[:, :1], 5.0)
    torch.testing.assert_close(one, ScheduledContrastiveLoss(scheduler())(image, text[:, 0], 5.0))


def test_images_that_come_twice_with_their_captions_are_named_by_group():
    image, text = pairs()
    several = torch.stack([text, pairs(1)[1]], dim=1)
    loss = ScheduledContrastiveLoss(Fixed())
    given = loss(image, several, group=GROUP)
    similarity = image.repeat_interleave(2, 0) @ several.reshape(12, 8).T
    each = multi_positive(similarity, 0.1, group=GROUP.repeat_interleave(2))
    torch.testing.assert_close(given, each.mean())


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_is_weighted(name):
    image, text = pairs()
    group = GROUP if LOSSES[name].grouped else None
    scheduler = Scheduler("entropy", gamma=5.0)
    schedule = scheduler(image @ text.T, 0.1)
    expected = weighted_mean(LOSSES[name](image @ text.T, 0.1, group=group), schedule)
    loss = ScheduledContrastiveLoss(Scheduler("entropy", gamma=5.0), loss=name)
    torch.testing.assert_close(loss(image, text, group=group), expected)


@pytest.mark.parametrize("name", TAKERS)
def test_with_a_group_for_each_row_every_loss_is_as_without(name):
    image, text = pairs()
    loss = ScheduledContrastiveLoss(Fixed(), loss=name)
    alone = None if name == "multi_positive" else loss(image, text)
    grouped = loss(image, text, group=torch.arange(6))
    torch.testing.assert_close(
        grouped, ScheduledContrastiveLoss(Fixed())(image, text) if alone is None else alone
    )


def test_rows_of_one_image_are_no_negatives():
    similarity = torch.tensor([[0.5, 0.9, 0.1], [0.0, 0.3, 0.2], [0.4, 0.0, 0.6]])
    group = torch.tensor([0, 0, 1])
    hinge = LOSSES["hardest_negatives"](similarity, 1.0, 0.2, group=group)
    expected = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0]])
    torch.testing.assert_close(hinge, expected)
    decoupled = LOSSES["decoupled"](similarity, 1.0, group=group)
    torch.testing.assert_close(
        decoupled[0],
        torch.tensor([0.1 - 0.5, 0.2 - 0.3, -0.6])
        + F.pad(torch.logsumexp(similarity[2, :2], 0)[None], (2, 0)),
    )
    labels = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]])
    decisions = -F.logsigmoid(labels * (similarity - 1))
    sigmoid = LOSSES["sigmoid"](similarity, 1.0, -1.0, group=group)
    torch.testing.assert_close(sigmoid, torch.stack([decisions.sum(1), decisions.sum(0)]))


@pytest.mark.parametrize("name", ["label_smoothing", "rince"])
def test_a_loss_that_takes_no_group_refuses_one_by_name(name):
    with pytest.raises(ValueError, match=f"the loss {name} takes no group; .* sigmoid take them"):
        ScheduledContrastiveLoss(loss=name)(*pairs(), group=GROUP)


@pytest.mark.parametrize("group", [GROUP[:3], GROUP.float(), GROUP[:, None]])
def test_a_group_that_fits_no_row_is_refused(group):
    with pytest.raises(ValueError, match=r"^group must be .* = \(6,\), or \(B,\), of integers"):
        ScheduledContrastiveLoss()(*pairs(), group=group)


def test_the_bias_of_a_sigmoid_loss_is_learned_and_that_of_a_softmax_rests():
    image, text = pairs()
    for name, rests in (("sigmoid", False), ("info_nce", True), ("decoupled", True)):
        bias = nn.Parameter(torch.tensor(-2.0))
        value = ScheduledContrastiveLoss(Fixed(), loss=name)(image, text, 10.0, logit_bias=bias)
        value.backward()
        assert bool(bias.grad == 0) is rests
        if name == "sigmoid":
            torch.testing.assert_close(value, LOSSES[name](image @ text.T, 0.1, -2.0).mean())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "softmax"}, "loss 'softmax' is unknown; the losses are info_nce, "),
        ({"loss": "info_nce", "constant": 0.1}, "the loss info_nce has no constant"),
        ({"loss": "rince", "constant": 2.0}, r"q of the loss rince must be .*\(0, 1\]; it is 2"),
    ],
)
def test_a_loss_that_is_not_there_is_refused_when_it_is_made(options, said):
    with pytest.raises(ValueError, match=said):
        ScheduledContrastiveLoss(**options)


@pytest.mark.parametrize("shape", [(1, 8), (1, 3, 8)])
def test_a_batch_of_one_image_can_be_skipped(shape):
    loss = ScheduledContrastiveLoss(skip_single=True)
    image = torch.ones(1, 8, requires_grad=True)
    scale, bias = (torch.tensor(3.0, requires_grad=True) for _ in range(2))
    value = loss(image, torch.ones(shape), scale, logit_bias=bias)
    value.backward()
    assert value == 0
    assert not any(tensor.grad.any() for tensor in (image, scale, bias))
    assert loss.scheduler.steps == 0
    assert loss.latest() == {}


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scale_of_one_element_is_a_number(shape):
    for training in (True, False):
        loss = ScheduledContrastiveLoss(Scheduler("entropy")).train(training)
        scale = torch.full(shape, 10.0, requires_grad=True)
        value = loss(*pairs(), scale)
        torch.testing.assert_close(
            value, ScheduledContrastiveLoss(Scheduler("entropy")).train(training)(*pairs(), 10.0)
        )
        value.backward()
        assert scale.grad.shape == shape
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="logit_scale must be 1 / τ, positive and finite"):
            loss(*pairs(), torch.full(shape, wrong))
    with pytest.raises(ValueError, match=r"logit_scale must be a number, .*; its shape is \(3,\)"):
        loss(*pairs(), torch.ones(3))


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16, torch.float64])
def test_two_types_of_numbers_are_taken(other):
    image, text = pairs()
    for a, b in ((image, text.to(other)), (image.to(other), text)):
        value = ScheduledContrastiveLoss()(a, b)
        expected = ScheduledContrastiveLoss()(image, text)
        torch.testing.assert_close(value, expected, atol=0.03, rtol=0, check_dtype=False)
