"""The optimiser of stacks against PyTorch's own AdamW, bit for bit."""

import pytest
import torch
from torch import Tensor, nn

from lib.models import matmul
from lib.training.optimiser import BLOCK, FACTORED_FROM, StackAdamW

STEPS = 5


@pytest.fixture
def of_any_size(monkeypatch):
    monkeypatch.setattr("lib.training.optimiser.FACTORED_FROM", 0)


def parameter(*shape: int) -> nn.Parameter:
    draws = torch.Generator().manual_seed(sum(shape))
    return nn.Parameter(torch.randn(shape, generator=draws))


def twins(*shapes: tuple[int, ...]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    ours, theirs = ([parameter(*shape) for shape in shapes] for _ in range(2))
    return ours, theirs


@pytest.mark.parametrize("decay", [None, "cosine"])
def test_the_weights_are_those_of_torch_bit_for_bit(decay):
    # Of one number, of an odd count, of whole blocks, and of blocks and a rest.
    shapes = [(1,), (3, 7, 5), (2, BLOCK), (2, BLOCK + 13)]
    ours, theirs = twins(*shapes)
    optimisers = [
        kind(
            [{"params": one[:2], "weight_decay": 0.0}, {"params": one[2:], "lr": 0.1}],
            lr=0.01,
            weight_decay=0.3,
            **options,
        )
        for kind, one, options in (
            (StackAdamW, ours, {}),
            (torch.optim.AdamW, theirs, {"foreach": True}),
        )
    ]
    decays = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for optimiser in optimisers
        if decay == "cosine"
    ]
    draws = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        for one, other in zip(ours, theirs, strict=True):
            # Gradients of all magnitudes, and some that are zero.
            gradient = torch.randn(one.shape, generator=draws).pow(9).mul(10.0 ** (step - 2))
            one.grad, other.grad = gradient.relu(), gradient.relu()
        for move in (*optimisers, *decays):
            move.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other), (tuple(one.shape), step)


def test_what_has_no_gradient_stays_as_it_is():
    ours, theirs = twins((4,), (4,))
    optimiser = StackAdamW([{"params": ours}], lr=0.1, weight_decay=0.5)
    ours[0].grad = torch.ones(4)
    optimiser.step()
    assert not torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def loss_of(first: Tensor, second: Tensor, features: Tensor, product, last) -> Tensor:
    return last(product(features, first).tanh(), second).square().sum()


@pytest.mark.parametrize(
    ("runs", "widths"),
    # On cache lines and off them, where products go another way; two blocks of weights at last.
    [(3, (32, 16, 48)), (4, (7, 5, 3)), (2, (600, 240, 1))],
)
def test_a_gradient_that_is_left_to_the_step_changes_no_bit(of_any_size, runs, widths):
    shapes = [(runs, widths[0], widths[1]), (runs, widths[1], widths[2])]
    ours, theirs = twins(*shapes)
    own = StackAdamW([{"params": ours}], lr=0.01, weight_decay=0.1)
    torchs = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, foreach=True)
    draws = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        features = torch.randn(runs, 16, widths[0], generator=draws)
        own.zero_grad()
        loss_of(*ours, features, own.matmul, own.matmul).backward()
        torchs.zero_grad()
        loss_of(*theirs, features, matmul, matmul).backward()
        assert [one.grad for one in ours] == [None, None]
        own.step()
        torchs.step()
        assert all(map(torch.equal, ours, theirs))


def test_small_weights_get_an_ordinary_gradient():
    small, large = parameter(2, 4, FACTORED_FROM // 4 - 1), parameter(2, 4, FACTORED_FROM // 4)
    optimiser = StackAdamW([{"params": [small, large]}], lr=0.1, weight_decay=0.0)
    for weight in (small, large):
        optimiser.matmul(torch.ones(2, 3, 4), weight).sum().backward()
    assert torch.equal(small.grad, torch.full_like(small, 3.0))
    assert large.grad is None


def test_a_parameter_may_leave_its_gradient_and_another_not(of_any_size):
    ours, theirs = twins((2, 6, 5), (2, 5, 4))
    own = StackAdamW([{"params": ours}], lr=0.01, weight_decay=0.1)
    torchs = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, foreach=True)
    features = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    loss_of(*ours, features, own.matmul, matmul).backward()
    loss_of(*theirs, features, matmul, matmul).backward()
    own.step()
    torchs.step()
    assert all(map(torch.equal, ours, theirs))


def test_a_run_is_updated_as_if_it_were_alone(of_any_size):
    (together,), (apart,) = twins((3, 7, 5))
    alone = [nn.Parameter(run[None].detach().clone()) for run in apart]
    draws = torch.Generator().manual_seed(0)
    optimisers = [
        StackAdamW([{"params": [one]}], lr=0.01, weight_decay=0.1) for one in (together, *alone)
    ]
    for _ in range(STEPS):
        features = torch.randn(3, 9, 7, generator=draws)
        portions = [features, *features.split(1)]
        for optimiser, one, part in zip(optimisers, (together, *alone), portions, strict=True):
            optimiser.matmul(part, one).square().sum().backward()
            optimiser.step()
    assert torch.equal(together, torch.cat(alone))


def test_gradients_that_were_left_are_forgotten_with_the_others(of_any_size):
    (weight,), (before,) = twins((2, 3, 4))
    optimiser = StackAdamW([{"params": [weight]}], lr=0.1, weight_decay=0.5)
    optimiser.matmul(torch.ones(2, 5, 3), weight).sum().backward()
    optimiser.zero_grad()
    optimiser.step()
    assert torch.equal(weight, before)
    optimiser.matmul(torch.ones(2, 5, 3), weight).sum().backward()
    optimiser.step()
    moved = weight.detach().clone()
    assert not torch.equal(moved, before)
    # A second step finds no gradient left.
    optimiser.step()
    assert torch.equal(weight, moved)


def test_a_weight_in_two_products_is_refused(of_any_size):
    weight = parameter(2, 3, 3)
    optimiser = StackAdamW([{"params": [weight]}], lr=0.1, weight_decay=0.0)
    twice = optimiser.matmul(optimiser.matmul(torch.ones(2, 4, 3), weight), weight)
    with pytest.raises(RuntimeError, match="two products"):
        twice.sum().backward()
