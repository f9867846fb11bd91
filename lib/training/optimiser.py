"""AdamW for a stack of runs: torch's own numbers with fewer passes over memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.models import matmul

BLOCK = 1 << 17
"""Numbers that are updated at a time: what one pass leaves is in the cache for the next."""
FACTORED_FROM = 1 << 15
"""Weights of a run from which its gradient is multiplied alone: fewer cost less than a call."""


@dataclass
class _Moments:
    """What is kept of a parameter.

    Attributes:
        runs: Blocks of weights with those of their two moments, by run where gradients are factors.
        gradient: Room for a run's, where they are.
        step: How often it was updated.
    """

    runs: list[list[tuple[Tensor, ...]]]
    gradient: Tensor | None
    step: int = 0


class StackAdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, algorithm 2), on a CPU.

    The weights are those of ``torch.optim.AdamW(foreach=True)`` to the last bit. That one makes
    each of its eight passes over all weights, and takes as much memory again at every step; with
    small batches this is the longer part of a step. Here every pass is made over a block before the
    next block begins, with one block of memory.

    Args:
        groups: Contiguous parameters in groups, which may have a ``weight_decay`` of their own.
        lr: Learning rate.
        weight_decay: Of the groups that have none; a step takes lr · weight_decay of a weight.
        betas: Decays of the first and the second moment.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            groups, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        )
        self._root = torch.empty(BLOCK)
        self._factors: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._moments: dict[Tensor, _Moments] = {}

    def matmul(self, left: Tensor, weight: Tensor) -> Tensor:
        """Multiply as :func:`lib.models.matmul`, and leave the weight's gradient to :meth:`step`.

        That multiplies it run by run and updates a run's weights while their gradient is in the
        cache, so that those of a whole stack are never in memory; ``weight.grad`` stays None. Small
        weights get theirs as ever.

        Args:
            left: (R, B, a).
            weight: (R, a, b), one of the parameters; in one product between two steps, whose
                backward pass raises a RuntimeError else.

        Returns:
            (R, B, b), which can be differentiated once.
        """
        if weight[0].numel() < FACTORED_FROM:
            return matmul(left, weight)
        product: Tensor = _Factored.apply(left, weight, self._factors)
        return product

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, those that are left to :meth:`step` too."""
        self._factors.clear()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None or parameter in self._factors:
                    self._update(parameter, group)
        self._factors.clear()

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        if parameter not in self._moments:
            self._moments[parameter] = self._begin(parameter)
        moments = self._moments[parameter]
        moments.step += 1
        first, second = group["betas"]
        kept = 1 - group["lr"] * group["weight_decay"]
        size = -group["lr"] / (1 - first**moments.step)
        # A power, not a root: their last bits can differ, and torch has the power.
        correction = (1 - second**moments.step) ** 0.5
        for blocks, gradient in zip(moments.runs, self._gradients(parameter), strict=True):
            for (weights, mean, square), slope in zip(blocks, _split(gradient), strict=True):
                mean.lerp_(slope, 1 - first)
                square.mul_(second).addcmul_(slope, slope, value=1 - second)
                root = torch.sqrt(square, out=self._root[: square.numel()])
                root.div_(correction).add_(group["eps"])
                weights.mul_(kept).addcdiv_(mean, root, value=size)

    def _begin(self, parameter: nn.Parameter) -> _Moments:
        mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        whole = (parameter.detach(), mean, square)
        factored = parameter in self._factors
        # Views that are made once: at every step they would take longer than a pass.
        runs = zip(*whole, strict=True) if factored else [whole]
        return _Moments(
            runs=[list(zip(*map(_split, run), strict=True)) for run in runs],
            gradient=torch.empty_like(parameter[:1]) if factored else None,
        )

    def _gradients(self, parameter: nn.Parameter) -> Iterator[Tensor]:
        """Yield a parameter's gradient, run by run where it is still two factors."""
        if parameter.grad is not None:
            yield parameter.grad
            return
        left, right = self._factors[parameter]
        for run in range(len(parameter)):
            one = slice(run, run + 1)
            yield matmul(left[one].mT, right[one], out=self._moments[parameter].gradient)


def _split(values: Tensor) -> tuple[Tensor, ...]:
    return torch.split(values.view(-1), BLOCK)


class _Factored(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, left: Tensor, weight: Tensor, factors: dict[Tensor, tuple[Tensor, Tensor]]
    ) -> Tensor:
        ctx.save_for_backward(left)
        ctx.weight, ctx.factors = weight, factors
        return matmul(left, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (left,) = ctx.saved_tensors
        (gradient,) = gradients
        if ctx.weight in ctx.factors:
            raise RuntimeError("a weight is in two products between two steps; use it in one")
        ctx.factors[ctx.weight] = left, gradient
        return matmul(gradient, ctx.weight.mT) if ctx.needs_input_grad[0] else None, None, None
