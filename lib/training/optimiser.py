"""AdamW for a stack of runs: torch's numbers with fewer passes over memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.models import matmul

BLOCK = 1 << 17
"""Weights that are updated at a time, few enough to stay in the cache between passes."""
FACTORED_FROM = 1 << 15
"""Weights per run from which gradients are computed run by run; below, the calls cost more."""


@dataclass
class _Moments:
    """State of a parameter.

    Attributes:
        runs: Blocks of weights, first and second moments; one list per run if the gradient is kept
            as factors, otherwise a single list.
        gradient: A buffer for one run's gradient, if kept as factors.
        step: Number of updates.
    """

    runs: list[list[tuple[Tensor, ...]]]
    gradient: Tensor | None
    step: int = 0


class StackAdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, algorithm 2), on a CPU.

    The weights equal those of ``torch.optim.AdamW(foreach=True)`` to the last bit. That optimiser
    makes eight passes over all weights and allocates as much memory again, which takes most of a
    step with small batches. This one makes all passes over a block that fits the cache.

    Args:
        groups: Groups of contiguous parameters, each with an optional ``weight_decay`` or ``lr``.
        lr: Learning rate.
        weight_decay: A step subtracts lr · weight_decay of each weight.
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
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        super().__init__(groups, defaults)
        self._root = torch.empty(BLOCK)
        self._factors: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._moments: dict[Tensor, _Moments] = {}

    def matmul(self, left: Tensor, weight: Tensor) -> Tensor:
        """Multiply as :func:`lib.models.matmul`, and leave the weight's gradient to :meth:`step`.

        The step computes the gradient run by run and updates a run's weights while their gradient
        is in the cache; the gradient of the whole stack is never in memory, and ``weight.grad``
        stays None. Weights below FACTORED_FROM elements get an ordinary ``.grad``.

        Args:
            left: (R, B, a).
            weight: (R, a, b), a parameter, used in at most one product per step; a second use
                raises RuntimeError in backward.

        Returns:
            (R, B, b), which can be differentiated once.
        """
        if weight[0].numel() < FACTORED_FROM:
            return matmul(left, weight)
        product: Tensor = _Factored.apply(left, weight, self._factors)
        return product

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, including those left to :meth:`step`."""
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
        # As in torch a power, not a root, whose last bits can differ.
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
        # The views are made once: making them at every step takes longer than a pass.
        runs = zip(*whole, strict=True) if factored else [whole]
        return _Moments(
            runs=[list(zip(*map(_split, run), strict=True)) for run in runs],
            gradient=torch.empty_like(parameter[:1]) if factored else None,
        )

    def _gradients(self, parameter: nn.Parameter) -> Iterator[Tensor]:
        """Yield a parameter's gradient, run by run if it is kept as factors."""
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
        (left,), (gradient,) = ctx.saved_tensors, gradients
        if ctx.weight in ctx.factors:
            raise RuntimeError("a weight is in two products between two steps; use it in one")
        ctx.factors[ctx.weight] = left, gradient
        return matmul(gradient, ctx.weight.mT) if ctx.needs_input_grad[0] else None, None, None
