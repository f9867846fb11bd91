"""Projection heads over frozen features, the dual encoder they form, and a learned temperature.

Modules carry ``batch_shape`` leading axes, so that a stack of independent runs is one module.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DualEncoder", "Embeddings", "LearnedTemperature", "ProjectionHead", "matmul"]


def matmul(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply stacks of matrices, (..., M, K) by (..., K, N), each product on its own.

    As ``left @ right``, but a product's bits don't depend on the stack it is in, forward or
    backward. A BLAS may take another path for a matrix that does not start on a cache line, and
    where a matrix of a stack starts depends on those before it.

    Args:
        left: (..., M, K).
        right: (..., K, N), with the same leading axes.
        out: Where to write the product, (..., M, N); there is no derivative then.

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
        (gradient,) = gradients
        return (
            _multiply(gradient, right.mT) if need_left else None,
            _multiply(left.mT, gradient) if need_right else None,
        )


CACHE_LINE = 64
"""Bytes to which torch aligns what it allocates on a CPU."""


def _multiply(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    shape = (left.shape[-2], left.shape[-1], right.shape[-1])
    sizes = (shape[0] * shape[1], shape[1] * shape[2], shape[0] * shape[2])
    aligned = all(count * left.element_size() % CACHE_LINE == 0 for count in sizes)
    if aligned or left.dim() == 2 or left.device.type != "cpu":
        return torch.matmul(left, right, out=out)
    flat = [m.expand(*left.shape[:-2], -1, -1).flatten(0, -3) for m in (left, right)]
    # A clone starts on a cache line of its own.
    products = [a.clone() @ b.clone() for a, b in zip(*flat, strict=True)]
    product = torch.stack(products).view(*left.shape[:-1], right.shape[-1])
    return product if out is None else out.copy_(product)


class ProjectionHead(nn.Module):
    """Standardise a feature, pass it through an MLP (by default one linear layer), normalise it.

    A new head's weights are zero and its features pass as they are: :meth:`initialise` draws the
    weights, and :meth:`standardise` takes the moments of what it will be trained on.

    Args:
        in_features: Length of a feature.
        out_features: Length of an embedding.
        hidden_layers: Number of hidden layers, with GELU; 0 gives the linear head.
        hidden_features: Width of each.
        dropout: Rate, on the standardised feature and after each hidden layer.
        batch_shape: Leading axes of a stack of independent heads; at most one.

    Raises:
        ValueError: A width is less than 1, there are less than 0 hidden layers, the dropout is
            not in [0, 1), or there is more than one leading axis.

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
        for name, width in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("hidden_features", hidden_features),
        ):
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
        """Draw each run's weights from its own generator, as ``nn.Linear`` does, biases at zero.

        Args:
            generators: One a run of the stack, on the CPU; a head alone is one run.

        Raises:
            ValueError: There are more or fewer generators than runs.
        """
        count = math.prod(self.mean.shape[:-2])
        if len(generators) != count:
            raise ValueError(
                f"generators: {len(generators)} of them for {count} runs; give one a run"
            )
        for weight in self.weights:
            bound = 1 / math.sqrt(weight.shape[-2])
            runs = weight.view(-1, *weight.shape[-2:])
            for run, generator in zip(runs, generators, strict=True):
                draw = torch.rand(run.shape, generator=generator)
                run.copy_((2 * draw - 1) * bound)

    @torch.no_grad()
    def standardise(self, features: Tensor, run: int | None = None) -> None:
        """Take the mean and the standard deviation of training features.

        Args:
            features: (..., n, in_features), or (n, in_features) for one run of the stack.
            run: That run's place in the stack.

        Raises:
            ValueError: The features have another length.
        """
        self._check_features(features)
        mean, scale = (self.mean, self.scale) if run is None else (self.mean[run], self.scale[run])
        mean.copy_(features.mean(dim=-2, keepdim=True))
        spread = features.std(dim=-2, keepdim=True, correction=0)
        # A feature that never varies in the subset carries nothing: it is centred, not blown up.
        scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    @torch.no_grad()
    def take(self, run: int) -> "ProjectionHead":
        """Return a copy of one run's head, without the stack's axis.

        Args:
            run: Its place in the stack.

        Returns:
            A head whose numbers are that run's.
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
        """Return what the first layer sees of features (..., B, in_features)."""
        return (features - self.mean).div_(self.scale)

    def standardise_(self, features: Tensor) -> Tensor:
        """Do the same in place."""
        return features.sub_(self.mean).div_(self.scale)

    def forward(
        self, features: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Embed features (..., B, in_features) into unit vectors (..., B, out_features).

        Args:
            features: Tower outputs, (..., B, in_features).
            generators: One a run of the stack, for dropout; None turns dropout off (evaluation).

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
        """Do the same to features that are standardised already.

        Args:
            hidden: (..., B, in_features).
            generators: As for :meth:`forward`.
            product: What multiplies by a layer's weights.

        Returns:
            As :meth:`forward`.
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
        """Embed standardised features (1, B, in_features) by one run's head of a stack, to measure.

        The bits are those of :meth:`project`, whose temporary copies, of a whole gallery for every
        run, would be too large for a cache.
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
        # A generator a run, so that a run's draws don't depend on its neighbours in the stack.
        shape = hidden.shape[-2:]
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        keep = (draws >= self.dropout).to(hidden.dtype) / (1 - self.dropout)
        return keep.view(hidden.shape).to(hidden.device)


class LearnedTemperature(nn.Module):
    """The temperature of CLIP (Radford et al., 2021): exp(−s) with a learned s, capped.

    Args:
        start: Initial τ, a number or a tensor of ``batch_shape``.
        cap: Greatest 1 / τ, 100 in CLIP.
        batch_shape: Leading axes.

    Raises:
        ValueError: ``start`` is not positive, or lies below 1 / cap.

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
        """Put the parameter back under the cap: call it after each optimiser step."""
        self.log_scale.clamp_(max=math.log(self.cap))

    def forward(self) -> Tensor:
        """Return τ, never under 1 / cap, also for a state loaded from elsewhere.

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
        image: The head of the images' features.
        text: The head of the captions' features.

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
            run: Its place in the stack.

        Returns:
            An encoder whose numbers are that run's.
        """
        return DualEncoder(self.image.take(run), self.text.take(run))

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Embeddings:
        """Embed the features of images and of captions.

        Args:
            image: (..., N, d_image).
            text: (..., M, d_text).
            generators: As for :meth:`ProjectionHead.forward`; images draw first.

        Returns:
            Unit vectors (..., N, d) and (..., M, d).

        Raises:
            ValueError: Features have another length than their head takes.
        """
        return Embeddings(self.image(image, generators), self.text(text, generators))
