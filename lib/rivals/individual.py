"""One temperature per training image and caption, each learned by its own gradient."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schedulers._checks import Number, as_constant, check_is_tensor, is_readable
from ._base import Rival, require


class IndividualTemperatures(Rival):
    r"""The robust contrastive loss with one temperature per training pair and direction.

    With :math:`h_j = S_{ij} - S_{ii}`, query i has the loss

    .. math::

       \min_{\tau_i} \; \tau_i \, \log \, \frac{1}{B - 1} \sum_{j \neq i} e^{h_j / \tau_i}
       + \tau_i \rho :

    the greatest mean of h under weights of the negatives whose divergence from uniform weights is
    at most ρ. At each step, for the queries of the batch,

    .. math::

       s \leftarrow (1 - \gamma) s + \gamma g ,
       \qquad g = \frac{1}{B - 1} \sum_{j \neq i} e^{h_j / \tau} ,

    .. math::

       u \leftarrow (1 - \beta) u
       + \beta \Bigl( \log \, s + \rho - \sum_j p_j h_j / \tau \Bigr) ,
       \qquad p_j = \frac{e^{h_j / \tau}}{(B - 1) \, s} ,

    .. math::

       \tau \leftarrow \operatorname{clip}(\tau - \eta u) ,

    where s starts as g and p are the weights of the negatives in the loss's gradient. If γ = 1, the
    gradient of τ is ρ minus the divergence of p from uniform weights, which is at most log(B − 1):
    every temperature falls to its bound if ρ is larger.

    Args:
        count: n, the number of training pairs; the captions of one image share a temperature.
        start: Initial temperature, a number or of ``batch_shape``.
        rho: ρ > 0, bound on the divergence, a number or of ``batch_shape``.
        step: η > 0, step size of the temperatures, a number or of ``batch_shape``.
        gamma: γ in (0, 1], share of the new estimate in s, a number or of ``batch_shape``.
        beta: β in (0, 1], share of the new gradient in u, a number or of ``batch_shape``.
        bounds: Least and greatest temperature. The paper has only a least one.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Source:
        iSogCLR, Qiu et al. (2023), algorithm 1, in its form for images and captions.

    >>> rule = IndividualTemperatures(3, start=0.1, rho=0.5)
    >>> losses = rule(torch.eye(2), torch.tensor([2, 0]))
    >>> losses
    tensor([[-0.9500, -0.9500],
            [-0.9500, -0.9500]])
    >>> rule.temperature[0]
    tensor([0.0955, 0.1000, 0.0955])
    """

    rho: Tensor
    step: Tensor
    gamma: Tensor
    beta: Tensor
    low: Tensor
    high: Tensor
    temperature: Tensor
    slope: Tensor
    log_mean: Tensor

    def __init__(
        self,
        count: int,
        start: Number,
        rho: Number,
        *,
        step: Number = 0.01,
        gamma: Number = 0.9,
        beta: Number = 0.9,
        bounds: tuple[float, float] = (0.005, 1.0),
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(batch_shape)
        if count < 2:
            raise ValueError(
                f"count, the number of training pairs, must be 2 or more; it is {count}"
            )
        low, high = self.add_constant("low", bounds[0]), self.add_constant("high", bounds[1])
        require((low > 0) & (high >= low) & high.isfinite(), "bounds", "0 < low ≤ high", bounds)
        self.add_positive("rho", rho)
        self.add_positive("step", step)
        for name, value in {"gamma": gamma, "beta": beta}.items():
            values = self.add_constant(name, value)
            require((values > 0) & (values <= 1), name, "in (0, 1]", value)
        tau = as_constant("start", start, self.batch_shape)
        require((tau >= low) & (tau <= high), "start", f"within the bounds {bounds}", start)
        self.register_buffer("temperature", _per_pair(tau, count))
        self.register_buffer("slope", _per_pair(torch.zeros_like(tau), count))
        self.register_buffer("log_mean", _per_pair(torch.full_like(tau, -math.inf), count))

    def forward(self, similarity: Tensor, index: Tensor) -> Tensor:
        """Return the loss of each query, and move the temperatures; in evaluation mode they stay.

        The loss is the objective at the running mean s; its gradient is the paper's estimate.

        Args:
            similarity: (..., B, B), B ≥ 2; its leading axes are ``batch_shape``.
            index: (..., B) distinct integers below ``count``: the training pairs of the batch.

        Returns:
            (..., 2, B): ``i2t`` then ``t2i``.

        Raises:
            ValueError: ``similarity`` or ``index`` has a wrong shape, B < 2 or, for a single run on
                the CPU, a similarity is not finite or an index is out of range.
        """
        self.check(similarity)
        check_is_tensor("index", index)
        if index.shape != similarity.shape[:-1]:
            raise ValueError(
                f"index must be (..., B) = {tuple(similarity.shape[:-1])}, the training pairs of "
                f"the batch; it is {tuple(index.shape)}"
            )
        count = self.temperature.shape[-1]
        if index.dim() == 1 and is_readable(index) and not 0 <= index.min() <= index.max() < count:
            raise ValueError(
                f"index must name training pairs, 0 to {count - 1}; it goes from "
                f"{int(index.min())} to {int(index.max())}"
            )
        size = similarity.shape[-1]
        both = index.unsqueeze(-2).expand(*index.shape[:-1], 2, size)
        buffers = self.temperature, self.slope, self.log_mean
        tau, slope, old = (buffer.gather(-1, both) for buffer in buffers)
        gamma, beta, rho, step, low, high = (
            constant[..., None, None]
            for constant in (self.gamma, self.beta, self.rho, self.step, self.low, self.high)
        )
        positive = similarity.diagonal(dim1=-2, dim2=-1)[..., None, :, None]
        gap = torch.stack([similarity, similarity.mT], dim=-3) - positive
        with torch.no_grad():
            scaled = gap / tau.unsqueeze(-1)
            itself = torch.eye(size, dtype=torch.bool, device=similarity.device)
            negatives = scaled.masked_fill(itself, -math.inf)
            new = negatives.logsumexp(dim=-1) - math.log(size - 1)
            running = torch.logaddexp(torch.log(1 - gamma) + old, gamma.log() + new)
            log_mean = torch.where(old.isneginf(), new, running)
            weight = torch.exp(negatives - log_mean.unsqueeze(-1)) / (size - 1)
            gradient = log_mean + rho - (weight * scaled).sum(dim=-1)
            slope = (1 - beta) * slope + beta * gradient
            moved = torch.minimum(torch.maximum(tau - step * slope, low), high)
            finite = similarity.isfinite().all(dim=(-2, -1))[..., None, None]
            for buffer, values in zip(buffers, (moved, slope, log_mean), strict=True):
                if self.training:
                    kept = torch.where(finite, values, buffer.gather(-1, both))
                    buffer.scatter_(-1, both, kept.to(buffer.dtype))
            value = tau * (log_mean + rho)
        carrier = (weight * gap).sum(dim=-1)
        return value + (carrier - carrier.detach())

    if TYPE_CHECKING:  # nn.Module.__call__ takes anything and returns Any.
        __call__ = forward


def _per_pair(values: Tensor, count: int) -> Tensor:
    return values[..., None, None].expand(*values.shape, 2, count).clone()
