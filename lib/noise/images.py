"""Noise in an image: Gaussian noise, Gaussian blur and occlusion by torchvision, JPEG by Pillow.

Noise, blur and JPEG have the constants of ImageNet-C (Hendrycks and Dietterich, ICLR 2019; Gaussian
blur is one of its four extra corruptions), which are for 224 × 224 pixels. The blur's length grows
with the image's width and height. Occlusion is a grey rectangle with the image's proportions, which
a tower squashes to a square.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lib.noise.checks import check_noise

SIDE = 224
"""Side, in pixels, of the images for which the constants were made."""
NOISE_SIGMA = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Standard deviation of the noise by severity; the range of a pixel is 1."""
BLUR_SIGMA = (1, 2, 3, 4, 6)
"""Standard deviation of the blur in pixels by severity."""
HIDDEN_SIDE = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Hidden share of the width and of the height by severity: 9 to 49 % of the area."""
JPEG_QUALITY = (25, 18, 15, 10, 7)
GREY = 128
"""Value of the hidden rectangle, 0 to 255."""

Draws = np.random.Generator


def corrupt_image(image: Image.Image, kind: str, severity: int, draws: Draws) -> Image.Image:
    """Return an image with noise of one kind, of the same mode and size.

    Args:
        image: Mode RGB, any size.
        kind: A key of :data:`lib.noise.IMAGE_KINDS`.
        severity: 1 to 5.
        draws: The random generator. No global random state is read or changed.

    Returns:
        The image with noise.

    Raises:
        ValueError: The kind or the severity is unknown.

    >>> picture = Image.new("RGB", (40, 20))
    >>> hidden = corrupt_image(picture, "occlusion", 3, np.random.default_rng(0))
    >>> hidden.size, sum(hidden.convert("L").histogram()[1:])
    ((40, 20), 200)
    """
    check_noise(kind, severity, IMAGE_KINDS)
    return IMAGE_KINDS[kind](image, severity, draws)


def _gaussian_noise(image: Image.Image, severity: int, draws: Draws) -> Image.Image:
    pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
    # gaussian_noise draws from torch's global CPU generator, whose state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(draws.integers(2**63)))
        noisy = F.gaussian_noise(pixels, sigma=NOISE_SIGMA[severity - 1])
    return _to_image(F.to_dtype(noisy, torch.uint8, scale=True))


def _gaussian_blur(image: Image.Image, severity: int, _draws: Draws) -> Image.Image:
    sigma = [BLUR_SIGMA[severity - 1] * length / SIDE for length in image.size]
    # The border is mirrored, so the radius must be below the length.
    lengths = zip(sigma, image.size, strict=True)
    size = [2 * min(math.ceil(3 * s), length - 1) + 1 for s, length in lengths]
    return _to_image(F.gaussian_blur(F.pil_to_tensor(image), size, sigma))


def _occlusion(image: Image.Image, severity: int, draws: Draws) -> Image.Image:
    share = HIDDEN_SIDE[severity - 1]
    width, height = (max(1, round(share * length)) for length in image.size)
    left = int(draws.integers(image.width - width + 1))
    top = int(draws.integers(image.height - height + 1))
    grey = torch.tensor(GREY, dtype=torch.uint8)
    return _to_image(F.erase(F.pil_to_tensor(image), top, left, height, width, grey))


def _jpeg(image: Image.Image, severity: int, _draws: Draws) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return Image.open(file).convert("RGB")


def _to_image(pixels: Tensor) -> Image.Image:
    image: Image.Image = F.to_pil_image(pixels)
    return image


IMAGE_KINDS: Mapping[str, Callable[[Image.Image, int, Draws], Image.Image]] = {
    "Gaussian noise": _gaussian_noise,
    "Gaussian blur": _gaussian_blur,
    "occlusion": _occlusion,
    "JPEG": _jpeg,
}
"""The kinds of image noise. Each maps an image, a severity and draws to an image.

>>> list(IMAGE_KINDS)
['Gaussian noise', 'Gaussian blur', 'occlusion', 'JPEG']
"""
