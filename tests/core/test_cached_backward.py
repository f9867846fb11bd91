"""Gradients of a whole batch from micro-batches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.losses import ScheduledContrastiveLoss, cached_backward
from lib.schedulers import Scheduler


def head(width, dropout=0.0):
    return nn.Sequential(nn.Linear(width, 9), nn.Tanh(), nn.Dropout(dropout), nn.Linear(9, 5))


class Towers(nn.Module):
    """Two heads, a learned temperature and a scheduled loss."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = head(4, dropout), head(3, dropout)
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.loss = ScheduledContrastiveLoss(Scheduler(gamma=5.0))

    def of(self, image, text):
        return self.loss(
            F.normalize(image, dim=-1), F.normalize(text, dim=-1), self.log_scale.exp()
        )

    def gradients(self):
        return {name: parameter.grad for name, parameter in self.named_parameters()}


def inputs(size=10):
    draws = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=draws), torch.randn(size, 3, generator=draws)


def whole(towers, batch):
    loss = towers.of(towers.image(batch[0]), towers.text(batch[1]))
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 10, 64])
def test_the_loss_and_the_gradients_are_those_of_the_whole_batch(micro_batch):
    cached, plain = Towers(), Towers()
    for _ in range(2):  # Gradients add up, and the scheduler takes one step each time.
        loss = cached_backward(cached.of, (cached.image, cached.text), inputs(), micro_batch)
        torch.testing.assert_close(loss, whole(plain, inputs()), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(cached.gradients(), plain.gradients(), atol=1e-5, rtol=1e-5)
    assert cached.loss.scheduler.steps == 2


def test_dropout_is_the_same_in_both_passes():
    """As a loop that encodes micro-batches with their graphs, at the memory of the whole batch."""
    cached, plain = Towers(dropout=0.5), Towers(dropout=0.5)
    torch.manual_seed(3)
    cached_backward(cached.of, (cached.image, cached.text), inputs(), 4)
    after = torch.rand(1)
    torch.manual_seed(3)
    image, text = (
        torch.cat([tower(rows) for rows in whole_input.split(4)])
        for tower, whole_input in zip((plain.image, plain.text), inputs(), strict=True)
    )
    plain.of(image, text).backward()
    torch.testing.assert_close(cached.gradients(), plain.gradients(), atol=1e-6, rtol=1e-5)
    assert after == torch.rand(1)


def test_the_second_pass_moves_no_running_statistic():
    towers = Towers()
    towers.image.insert(1, nn.BatchNorm1d(9))
    once = copy.deepcopy(towers.image)
    for rows in inputs()[0].split(5):
        once(rows)
    cached_backward(towers.of, (towers.image, towers.text), inputs(), 5)
    torch.testing.assert_close(dict(towers.image.named_buffers()), dict(once.named_buffers()))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 5)

    def forward(self, tokens):
        mask = tokens["mask"].unsqueeze(-1)
        return (self.embedding(tokens["ids"]) * mask).sum(dim=1) / mask.sum(dim=1)

    def words(self, samples):
        ids = torch.tensor([[len(word) for word in sample.split()] for sample in samples])
        return self.embedding(ids).mean(dim=1)


def test_inputs_are_tensors_mappings_tuples_or_lists_of_samples():
    towers, text = Towers(), Tokens()
    images = inputs(6)[0]
    captions = ["a kite flies", "two kites fly", "no one sees", "it or her", "ah so what", "a b c"]
    ids = torch.tensor([[len(word) for word in caption.split()] for caption in captions])
    tokens = {"ids": ids, "mask": torch.ones(6, 3)}

    def gradient(encoder, batch):
        text.zero_grad()
        towers.loss.scheduler = Scheduler()
        cached_backward(towers.of, (towers.image, encoder), (images, batch), 4)
        return text.embedding.weight.grad.clone()

    expected = gradient(text, tokens)
    assert expected.any()
    torch.testing.assert_close(gradient(text.words, captions), expected)
    torch.testing.assert_close(
        gradient(lambda pair: text({"ids": pair[0], "mask": pair[1]}), (ids, tokens["mask"])),
        expected,
    )


def test_a_frozen_encoder_is_left_alone():
    towers = Towers()
    towers.image.requires_grad_(False)
    calls = []
    towers.image.register_forward_hook(lambda *_: calls.append(1))
    cached_backward(towers.of, (towers.image, towers.text), inputs(), 2)
    assert towers.text[0].weight.grad.any()
    assert towers.image[0].weight.grad is None
    assert len(calls) == 6  # Five micro-batches, and one that showed that it is frozen.


def test_an_encoder_of_several_processes_synchronises_once():
    class Counted(nn.Linear):
        unsynchronised = 0

        def no_sync(self):
            Counted.unsynchronised += 1
            return torch.enable_grad()

    towers = Towers()
    towers.image = Counted(4, 5)
    cached_backward(towers.of, (towers.image, towers.text), inputs(), 2)
    assert Counted.unsynchronised == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"micro_batch": 0}, "micro_batch must be a whole number from 1 on; it is 0"),
        ({"batch": inputs()[:1]}, "batch holds 1 inputs for 2 encoders"),
        ({"batch": (inputs(4)[0], inputs(5)[1])}, r"the same number of rows; they have \[4, 5\]"),
        ({"batch": inputs(0)}, r"the same number of rows; they have \[0, 0\]"),
        (
            {"batch": (inputs()[0], (inputs(4)[1], inputs(5)[1]))},
            r"the same number of rows; they have \[10, 0\]",
        ),
        (
            {"encoders": (lambda rows: rows.sum(), lambda rows: rows)},
            r"an encoder must return embeddings \(b, ...\), here of 4 rows; it returned \(\)",
        ),
        (
            {"encoders": (lambda rows: [rows], lambda rows: rows)},
            "here of 4 rows; it returned list",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_gradient_is_added(change, said):
    towers = Towers()
    given = {"encoders": (towers.image, towers.text), "batch": inputs(), "micro_batch": 4}
    with pytest.raises(ValueError, match=said):
        cached_backward(towers.of, **given | change)
    assert all(gradient is None for gradient in towers.gradients().values())
