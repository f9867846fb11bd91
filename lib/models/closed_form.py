"""Heads in closed form: ridge-regularised canonical correlation analysis."""

import torch
from torch import Tensor

from .heads import DualEncoder, ProjectionHead


@torch.no_grad()
def canonical_heads(
    image: Tensor,
    text: Tensor,
    out_features: int,
    *,
    owner: Tensor | None = None,
    image_ridge: float = 1.0,
    text_ridge: float = 1.0,
    power: float = 1.0,
) -> DualEncoder:
    """Return linear heads by ridge-regularised canonical correlation analysis.

    Both features are standardised, x and y, and pairs are of an image and one of its captions. Over
    all pairs, take the covariances C_xx + r_x·I, C_yy + r_y·I and C_xy, and the singular value
    decomposition U·diag(ρ)·Vᵀ of C_xx^(−½)·C_xy·C_yy^(−½). An image's embedding is
    diag(ρ^p)·Uᵀ·C_xx^(−½)·x and a caption's diag(ρ^p)·Vᵀ·C_yy^(−½)·y, both normalised. Nothing is
    drawn, and no step is taken.

    Args:
        image: (N, d_image) features of images.
        text: (M, d_text) features of captions.
        out_features: Length of an embedding. Beyond the shorter of the two features, the
            coordinates are zero.
        owner: (M,) the row of each caption's image; None: captions and images are row by row of one
            pair.
        image_ridge: r_x > 0, in units of the variance of a standardised feature.
        text_ridge: r_y > 0, likewise.
        power: p, the power of the canonical correlations ρ by which a direction counts; 0 counts
            all alike.

    Returns:
        Heads of 32-bit weights on the features' device.

    Raises:
        ValueError: The features are not of two pairs or more or not finite, an owner is no row of
            ``image``, a ridge is not positive, or the power is negative.

    Source:
        Vinod (1976) for the ridge; Gong et al. (2014) for images with text, and for the power,
        which is 4 there.

    >>> draw = torch.Generator().manual_seed(0)
    >>> shared = torch.randn(200, 3, generator=draw)
    >>> text = shared @ torch.randn(3, 5, generator=draw)
    >>> heads = canonical_heads(shared, text, 3, image_ridge=1e-3, text_ridge=1e-3)
    >>> embedded = heads(shared, text)
    >>> bool((embedded.image * embedded.text).sum(dim=-1).min() > 0.99)
    True
    """
    if image.dim() != 2 or text.dim() != 2 or min(len(image), len(text)) < 2:
        raise ValueError(
            "image and text must be (N, d_image) and (M, d_text) with N and M from 2; they are "
            f"{tuple(image.shape)} and {tuple(text.shape)}"
        )
    if owner is None and len(image) != len(text):
        raise ValueError(
            f"{len(image)} images and {len(text)} captions; give owner, the row of each caption's "
            "image"
        )
    if owner is None:
        owner = torch.arange(len(text), device=text.device)
    if owner.shape != text.shape[:1] or not bool(((owner >= 0) & (owner < len(image))).all()):
        raise ValueError(
            f"owner must be ({len(text)},) rows from 0 to {len(image) - 1}; it is of shape "
            f"{tuple(owner.shape)}, from {int(owner.min())} to {int(owner.max())}"
        )
    for name, ridge in {"image_ridge": image_ridge, "text_ridge": text_ridge}.items():
        if not 0 < ridge < float("inf"):
            raise ValueError(f"{name} = {ridge}; use a positive number")
    if not 0 <= power < float("inf"):
        raise ValueError(f"power = {power}; use 0 or a positive number")
    heads = [ProjectionHead(features.shape[1], out_features) for features in (image, text)]
    x, y = (
        _standardised(name, head, features)
        for name, head, features in zip(("image", "text"), heads, (image, text), strict=True)
    )
    # The sums over pairs, without a copy of an image for each of its captions.
    captions = torch.bincount(owner, minlength=len(x)).double()
    factors = [
        _factor(x.mT @ (captions[:, None] * x) / len(y), image_ridge),
        _factor(y.mT @ y / len(y), text_ridge),
    ]
    cross = x.mT @ x.new_zeros(len(x), y.shape[1]).index_add_(0, owner, y) / len(y)
    # With C = L·Lᵀ, L⁻¹ stands for C^(−½): the two differ by a rotation, which U or V takes up.
    whitened = torch.linalg.solve_triangular(factors[0], cross, upper=False)
    whitened = torch.linalg.solve_triangular(factors[1], whitened.mT, upper=False).mT
    left, correlation, right = torch.linalg.svd(whitened, full_matrices=False)
    kept = min(out_features, len(correlation))
    strength = correlation[:kept].clamp(max=1) ** power
    for head, factor, directions in zip(heads, factors, (left, right.mT), strict=True):
        directions = torch.linalg.solve_triangular(factor.mT, directions[:, :kept], upper=True)
        head.weights[0][:, :kept] = (directions * strength).float()
    return DualEncoder(*heads)


def _standardised(name: str, head: ProjectionHead, features: Tensor) -> Tensor:
    """Set a head's moments to those of features, and return these standardised, in 64 bits."""
    if not bool(features.isfinite().all()):
        raise ValueError(f"{name} holds values that are not finite")
    head.to(features.device).standardise(features)
    return head.standardised(features).double()


def _factor(covariance: Tensor, ridge: float) -> Tensor:
    covariance.diagonal().add_(ridge)
    factor: Tensor = torch.linalg.cholesky(covariance)
    return factor
