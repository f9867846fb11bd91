"""Projection heads over frozen features, a dual encoder of two heads, and a learned temperature.

Modules have leading axes ``batch_shape``, so that a stack of independent runs is one module.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def matmul(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``left @ right`` with bits that do not depend on the other matrices of the stack.

    A BLAS may take another path for a matrix that does not start on a cache line, and the start of
    a matrix depends on the matrices before it in the stack. This holds backward, too.

    Args:
        left: (..., M, K).
        right: (..., K, N), with the same leading axes.
        out: Tensor for the product, (..., M, N); there is no derivative then.

    Returns:
        (..., M, N), which can be differentiated once.

    >>> matmul(torch.ones(3, 2, 5), torch.ones(3, 5, 4)).shape
    torch.Size([3, 2, 4])
    """
    if out is not None:
        return _multiply(left, right, out)
    product: Tensor = _Matmul.apply(left, right)
    return product


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return _multiply(left, right)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        left, right = ctx.saved_tensors
        need_left, need_right = ctx.needs_input_grad
        return (
            _multiply(gradients[0], right.mT) if need_left else None,
            _multiply(left.mT, gradients[0]) if need_right else None,
        )


CACHE_LINE = 64
"""Alignment in bytes of tensors that torch allocates on a CPU."""


def _multiply(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    m, k, n = *left.shape[-2:], right.shape[-1]
    aligned = all(c * left.element_size() % CACHE_LINE == 0 for c in (m * k, k * n, m * n))
    if aligned or left.dim() == 2 or left.device.type != "cpu":
        return torch.matmul(left, right, out=out)
    flat = [s.expand(*left.shape[:-2], -1, -1).flatten(0, -3) for s in (left, right)]
    # A clone starts on a cache line.
    products = [a.clone() @ b.clone() for a, b in zip(*flat, strict=True)]
    product = torch.stack(products).view(*left.shape[:-1], right.shape[-1])
    return product if out is None else out.copy_(product)


class ProjectionHead(nn.Module):
    """Standardise a feature, pass it through an MLP (by default one linear layer), normalise it.

    A new head has zero weights and does not change its features: :meth:`initialise` draws the
    weights, and :meth:`standardise` sets the moments of the training features.

    Args:
        in_features: Length of a feature.
        out_features: Length of an embedding.
        hidden_layers: Number of hidden layers, with GELU; 0 gives the linear head.
        hidden_features: Width of a hidden layer.
        dropout: Rate, on the standardised feature and after each hidden layer.
        batch_shape: Leading axes of a stack of independent heads; at most one.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    >>> head = ProjectionHead(1280, 256)
    >>> head.initialise([torch.Generator().manual_seed(0)])
    >>> head.standardise(torch.rand(100, 1280))
    >>> head(torch.rand(8, 1280)).norm(dim=-1).allclose(torch.ones(8))
    True
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_layers: int = 0,
        hidden_features: int = 512,
        dropout: float = 0.0,
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features}
        for name, width in {**sizes, "hidden_features": hidden_features}.items():
            if width < 1:
                raise ValueError(f"{name} = {width}; use a whole number from 1")
        if hidden_layers < 0:
            raise ValueError(f"hidden_layers = {hidden_layers}; use 0 for a linear head, or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout = {dropout}; use a rate from 0 to less than 1")
        if len(batch_shape) > 1:
            raise ValueError(f"batch_shape = {batch_shape}; a stack has one leading axis, or none")
        self.dropout = dropout
        widths = [in_features, *[hidden_features] * hidden_layers, out_features]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(*batch_shape, a, b)) for a, b in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(*batch_shape, 1, b)) for b in widths[1:]
        )
        self.register_buffer("mean", torch.zeros(*batch_shape, 1, in_features))
        self.register_buffer("scale", torch.ones(*batch_shape, 1, in_features))

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each run's weights from one generator, as ``nn.Linear`` does; biases stay zero.

        Args:
            generators: One per run of the stack, on the CPU; a single head is one run.

        Raises:
            ValueError: There are more or fewer generators than runs.
        """
        count = math.prod(self.mean.shape[:-2])
        if len(generators) != count:
            given = len(generators)
            raise ValueError(f"generators: {given} of them for {count} runs; give one per run")
        for weight in self.weights:
            bound = 1 / math.sqrt(weight.shape[-2])
            runs = weight.view(-1, *weight.shape[-2:])
            for run, generator in zip(runs, generators, strict=True):
                draw = torch.rand(run.shape, generator=generator)
                run.copy_((2 * draw - 1) * bound)

    @torch.no_grad()
    def standardise(self, features: Tensor, run: int | None = None) -> None:
        """Set the mean and the standard deviation to those of training features.

        Args:
            features: (..., n, in_features), or (n, in_features) for one run of the stack.
            run: Index of that run in the stack.

        Raises:
            ValueError: The features have another length.
        """
        self._check_features(features)
        mean, scale = (self.mean, self.scale) if run is None else (self.mean[run], self.scale[run])
        mean.copy_(features.mean(dim=-2, keepdim=True))
        spread = features.std(dim=-2, keepdim=True, correction=0)
        # A constant feature is centred, but not divided by a deviation at rounding level.
        scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    @torch.no_grad()
    def take(self, run: int) -> "ProjectionHead":
        """Return a copy of one run's head, without the stack's axis.

        Args:
            run: Index of the run in the stack.

        Returns:
            A head with that run's numbers.
        """
        alone = ProjectionHead(
            self.weights[0].shape[-2],
            self.weights[-1].shape[-1],
            hidden_layers=len(self.weights) - 1,
            hidden_features=self.weights[0].shape[-1],
            dropout=self.dropout,
        ).to(self.mean.device)
        state = self.state_dict()
        alone.load_state_dict({name: tensor[run] for name, tensor in state.items()})
        return alone

    def standardised(self, features: Tensor) -> Tensor:
        """Return standardised features (..., B, in_features)."""
        return (features - self.mean).div_(self.scale)

    def standardise_(self, features: Tensor) -> Tensor:
        """Standardise features (..., B, in_features) in place, and return them."""
        return features.sub_(self.mean).div_(self.scale)

    def forward(
        self, features: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Return the embeddings of features.

        Args:
            features: Tower outputs, (..., B, in_features).
            generators: One per run of the stack, for dropout; None turns dropout off (evaluation).

        Returns:
            Embeddings (..., B, out_features) of length 1.

        Raises:
            ValueError: The features have another length.
        """
        self._check_features(features)
        return self.project(self.standardised(features), generators)

    def project(
        self,
        hidden: Tensor,
        generators: Sequence[torch.Generator] | None = None,
        product: Callable[[Tensor, Tensor], Tensor] = matmul,
    ) -> Tensor:
        """Return the embeddings of standardised features ``hidden`` (..., B, in_features).

        ``generators`` as for :meth:`forward`; ``product`` multiplies by a layer's weights.
        """
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = F.gelu(hidden)
            if generators is not None and self.dropout:
                hidden = hidden * self._keep(hidden, generators)
            hidden = product(hidden, weight) + bias
        return F.normalize(hidden, dim=-1)

    @torch.no_grad()
    def project_run(self, run: int, hidden: Tensor) -> Tensor:
        """Return the embeddings of standardised features (1, B, in_features) by one run's head.

        The bits are those of :meth:`project`, whose temporary copies of a gallery for all runs do
        not fit in a cache.
        """
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = F.gelu(hidden)
            hidden = matmul(hidden, weight[run : run + 1]).add_(bias[run])
        return F.normalize(hidden, dim=-1, out=hidden)

    def _check_features(self, features: Tensor) -> None:
        width = self.mean.shape[-1]
        if features.dim() < 2 or features.shape[-1] != width:
            raise ValueError(
                f"features of shape {tuple(features.shape)}; this head takes (..., B, {width})"
            )

    def _keep(self, hidden: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        # One generator per run: a run's draws do not depend on the other runs of the stack.
        shape = hidden.shape[-2:]
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        keep = (draws >= self.dropout).to(hidden.dtype) / (1 - self.dropout)
        return keep.view(hidden.shape).to(hidden.device)


class LearnedTemperature(nn.Module):
    """The temperature of CLIP (Radford et al., 2021): exp(−s) with a learned, capped s.

    Args:
        start: Initial τ, a number or a tensor of ``batch_shape``.
        cap: Greatest 1 / τ, 100 in CLIP.
        batch_shape: Leading axes of a stack of independent runs.

    Raises:
        ValueError: ``start`` is not positive, or is less than 1 / cap.

    >>> temperature = LearnedTemperature(0.07)
    >>> round(temperature().item(), 4)
    0.07
    """

    def __init__(
        self, start: float | Tensor, cap: float = 100.0, batch_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        tau = torch.as_tensor(start, dtype=torch.get_default_dtype()).expand(batch_shape).clone()
        if not bool(((tau > 0) & (tau * cap >= 1 - 1e-6)).all()):
            raise ValueError(
                f"the temperature must start at 1 / cap = {1 / cap:g} or more; it is {start}"
            )
        self.cap = cap
        self.log_scale = nn.Parameter(-tau.log())

    @torch.no_grad()
    def project(self) -> None:
        """Clamp the parameter to the cap; call this after each optimiser step."""
        self.log_scale.clamp_(max=math.log(self.cap))

    def forward(self) -> Tensor:
        """Return τ, at least 1 / cap, also for a loaded state.

        Returns:
            τ in the unit of a similarity, (...).
        """
        return torch.exp(-self.log_scale.clamp(max=math.log(self.cap)))


class Embeddings(NamedTuple):
    """The unit vectors of a batch.

    Args:
        image: (..., N, d).
        text: (..., M, d).

    >>> Embeddings(torch.eye(3), torch.eye(3)).text.shape
    torch.Size([3, 3])
    """

    image: Tensor
    text: Tensor


class DualEncoder(nn.Module):
    """An image head and a text head into one embedding space.

    Args:
        image: Head of the images' features.
        text: Head of the captions' features.

    Raises:
        ValueError: Their embeddings have different lengths.

    >>> model = DualEncoder(ProjectionHead(1280, 256), ProjectionHead(384, 256))
    >>> [tuple(part.shape) for part in model(torch.rand(8, 1280), torch.rand(8, 384))]
    [(8, 256), (8, 256)]
    """

    def __init__(self, image: ProjectionHead, text: ProjectionHead) -> None:
        super().__init__()
        lengths = [head.weights[-1].shape[-1] for head in (image, text)]
        if lengths[0] != lengths[1]:
            raise ValueError(
                f"the image head's embeddings have length {lengths[0]}, the text head's "
                f"{lengths[1]}; give both the same out_features"
            )
        self.image = image
        self.text = text

    def take(self, run: int) -> "DualEncoder":
        """Return a copy of one run's heads, without the stack's axis.

        Args:
            run: Index of the run in the stack.

        Returns:
            An encoder with that run's numbers.
        """
        return DualEncoder(self.image.take(run), self.text.take(run))

    def forward(
        self, image: Tensor, text: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Embeddings:
        """Return the embeddings of the features of images and of captions.

        Args:
            image: (..., N, d_image).
            text: (..., M, d_text).
            generators: As for :meth:`ProjectionHead.forward`; images draw first.

        Returns:
            Unit vectors (..., N, d) and (..., M, d).

        Raises:
            ValueError: The features have another length than the head's ``in_features``.
        """
        return Embeddings(self.image(image, generators), self.text(text, generators))
