"""Weights of the two directions that balance the norms of their gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schedulers._checks import Number, check_finite
from ..schedulers._state import follow
from ._base import Rival, require

LEAST_WEIGHT = 1e-3
"""Lower bound of a weight after each step."""


class GradNorm(Rival):
    r"""Weights under which both directions train at the same rate.

    With :math:`G_d = \lVert w_d \nabla \ell_d \rVert` over the shared parameters, and
    :math:`r_d` the loss as a share of the first one, divided by the mean of that share over
    directions, a step moves the weights down the gradient of

    .. math::

       \sum_d \left| G_d - \bar G \, r_d^{\alpha} \right| ,

    with the target :math:`\bar G \, r_d^{\alpha}` held constant. Then the weights are scaled to the
    sum 2.

    Args:
        alpha: α ≥ 0, a number or of ``batch_shape``; a larger α favours the slower direction more.
        step: Learning rate of the weights, a number or of ``batch_shape``.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source:
        Chen et al. (2018), algorithm 1.

    >>> shared = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> losses = torch.tensor([[3.0, 0.0], [0.0, 1.0]]) @ shared
    >>> rule = GradNorm(alpha=1.0, step=0.1)
    >>> rule(losses, [shared]), rule.weights
    (tensor([1., 1.]), tensor([0.7778, 1.2222]))
    """

    alpha: Tensor
    step: Tensor
    weights: Tensor
    first: Tensor
    steps: Tensor

    def __init__(
        self, alpha: Number = 1.5, step: Number = 0.025, *, batch_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__(batch_shape)
        values = self.add_constant("alpha", alpha)
        require(values.isfinite() & (values >= 0), "alpha", "0 or more", alpha)
        self.add_positive("step", step)
        self.add_state("weights")
        self.weights.fill_(1)
        self.add_state("first")
        self.add_steps()

    def forward(self, losses: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return this step's weights, and move them for the next; in evaluation mode they stay.

        Args:
            losses: (..., 2) unweighted loss of each direction, with its graph, which is retained.
            parameters: Tensors that both directions share, each (..., rows, columns) or of any
                other shape after the stack's leading axes; in the paper the last shared layer.

        Returns:
            (..., 2): ``i2t`` then ``t2i``, with sum 2.

        Raises:
            ValueError: ``losses`` is not (..., 2), ``losses`` or a parameter has other leading axes
                than ``batch_shape``, or a loss of a single run on the CPU is not finite.
        """
        self.check_axes("losses", losses, 1)
        if losses.shape[-1] != 2:
            raise ValueError(
                f"losses must be (..., 2), i2t then t2i; its shape is {tuple(losses.shape)}"
            )
        follow(self, losses.device)
        if losses.dim() == 1:
            check_finite("losses", losses)
        for parameter in parameters:
            last = max(parameter.dim() - len(self.batch_shape), 0)
            self.check_axes("a parameter", parameter, last)
        if not self.training:
            return self.weights.to(losses.dtype, copy=True)
        norms = torch.stack([self._norm(loss, parameters) for loss in losses.unbind(-1)], dim=-1)
        used = self.weights.clone()
        with torch.no_grad():
            tiny = torch.finfo(losses.dtype).tiny
            finite = (losses.isfinite() & norms.isfinite()).all(dim=-1, keepdim=True)
            opens = finite & (self.steps == 0)
            self.first.copy_(torch.where(opens, losses, self.first))
            rate = losses.clamp(min=tiny) / self.first.clamp(min=tiny)
            relative = rate / rate.mean(dim=-1, keepdim=True)
            weighted = used * norms
            target = weighted.mean(dim=-1, keepdim=True) * relative ** self.alpha.unsqueeze(-1)
            slope = torch.sign(weighted - target) * norms
            moved = (used - self.step.unsqueeze(-1) * slope).clamp(min=LEAST_WEIGHT)
            moved = 2 * moved / moved.sum(dim=-1, keepdim=True)
            self.weights.copy_(torch.where(finite, moved, self.weights))
            self.steps += finite.any()
        return used.to(losses.dtype)

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward

    def _norm(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        # The runs share nothing, so the gradient of their sum holds the gradient of each run.
        gradients = torch.autograd.grad(loss.sum(), list(parameters), retain_graph=True)
        return torch.stack([self._squares(g) for g in gradients]).sum(dim=0).sqrt()

    def _squares(self, gradient: Tensor) -> Tensor:
        # One axis at a time: torch may split a sum over all axes of a single run over threads, so
        # that its last bits would depend on whether the run is in a stack.
        total = gradient.square()
        while total.dim() > len(self.batch_shape):
            total = total.sum(dim=-1)
        return total
