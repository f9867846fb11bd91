"""The contrastive loss against hand-worked values, torch's cross-entropy, and finite gradients."""

import math

import pytest
import torch
from torch.nn import functional as F

from lib.losses import contrastive_loss, info_nce, weighted_mean
from lib.schedulers import SIGNALS, Fixed, Schedule, Scheduler
from lib.schedulers.actuators import ACTUATORS


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
