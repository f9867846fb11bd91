"""Runs of every kind, and the borrowed loss, on a pretended GPU: nothing is left on the CPU."""

import pytest
import torch
from pretended_gpu import Pretended, pretended_gpu
from small_runs import MIXED, config, schedule
from torch import nn
from torch.nn import functional as F

from lib.adapters.open_clip import ScheduledClipLoss
from lib.losses import LOSSES, ScheduledContrastiveLoss, cached_backward
from lib.rivals import CosineTemperature, DynamicWeightAverage, UncertaintyWeights
from lib.schedulers import ACTUATORS, SIGNALS, Fixed, Scheduler

SCHEDULED = [(signal, actuator) for signal in SIGNALS for actuator in ACTUATORS]
KINDS = [
    config(schedule=schedule(signal, actuator, gamma=2.0, warmup=1))
    for signal, actuator in SCHEDULED
]


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with pretended_gpu() as gpu:
        ours, host = torch.ones(2, 2).to(gpu), torch.ones(2, 2)
        assert isinstance(ours + 1, Pretended)
        assert (2 * ours).sum().item() == 8
        for wrong in (lambda: ours + host, lambda: ours @ host, lambda: host.add_(ours)):
            with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
                wrong()
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            ours.numpy()
    assert torch.cuda.is_available() is (torch.cuda.device_count() > 0)


@pytest.mark.parametrize("one", [*MIXED, *KINDS], ids=lambda c: f"{c.method}, {c.loss}")
def test_a_run_of_every_kind_trains_on_a_gpu(train_small, one):
    short = one.model_copy(update={"epochs": 2})
    (here,) = train_small([short], name="cpu")
    with pretended_gpu():
        (there,) = train_small([short], name="gpu", device="cuda")
    assert there.made["device"] == "cuda (Pretended GPU)"
    assert there.test == pytest.approx(here.test, abs=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda kind=kind: Scheduler(kind.schedule.signal, kind.schedule.actuator)
            for kind in KINDS
        ),
        Fixed,
        UncertaintyWeights,
        lambda: CosineTemperature(0.1, 0.5, 4),
        lambda: DynamicWeightAverage(period=2),
    ],
)
def test_the_loss_follows_the_embeddings_to_their_device(make):
    """Nobody has moved the scheduler, and the scale may still be on the CPU."""
    with pretended_gpu() as gpu:
        loss_of = ScheduledContrastiveLoss(make())
        for scale in (None, 5.0, torch.tensor(5.0), torch.tensor([5.0]), torch.tensor(5.0).to(gpu)):
            image, text = (F.normalize(torch.randn(6, 8), dim=-1).to(gpu) for _ in range(2))
            loss_of(image.requires_grad_(), text, scale).backward()
            assert isinstance(image.grad, Pretended)
        assert all(isinstance(state, Pretended) for state in loss_of.state_dict().values())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_groups_and_biases_of_a_gpu(name):
    loss = LOSSES[name]
    with pretended_gpu() as gpu:
        image, text = (F.normalize(torch.randn(6, 8), dim=-1).to(gpu) for _ in range(2))
        group = torch.arange(6) // 2 if loss.grouped or loss.takes_group else None
        bias = torch.tensor(-1.0).to(gpu).requires_grad_()
        loss_of = ScheduledContrastiveLoss(loss=name)
        loss_of(image.requires_grad_(), text, logit_bias=bias, group=group).backward()
        assert isinstance(image.grad, Pretended)
        assert isinstance(bias.grad, Pretended)


def test_adapters_and_micro_batches_run_on_a_gpu():
    with pretended_gpu() as gpu:
        heads = [nn.Linear(8, 4).to(gpu) for _ in range(2)]
        batch = [torch.randn(6, 8).to(gpu) for _ in range(2)]
        cached_backward(ScheduledContrastiveLoss(), heads, batch, 4)
        assert all(isinstance(head.weight.grad, Pretended) for head in heads)
        image, text = (head(rows) for head, rows in zip(heads, batch, strict=True))
        scale, bias = torch.tensor(5.0).to(gpu), torch.tensor(-1.0).to(gpu)
        losses = ScheduledClipLoss()(image, text, scale, bias, output_dict=True)
        assert isinstance(losses["contrastive_loss"], Pretended)
