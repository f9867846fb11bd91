"""Decoding of image files to RGB, and their inspection."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MATTE = (255, 255, 255)
"""The colour of transparent parts: white."""
MAX_PIXELS = 50_000_000
"""Larger images are refused: a small file may decode to more pixels than fit into memory."""
MAX_FILE_BYTES = 256 << 20
"""Larger files are refused unread."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""The formats that are decoded, whatever a file's name. Pillow's others may start a program."""
DECODING_VERSION = 1
"""Raise this when the same file gives other pixels; it is part of a corpus's fingerprint."""


@dataclass(frozen=True)
class Inspection:
    """The SHA-256 of an image file's bytes, and what is wrong with it ("" if nothing is)."""

    sha256: str
    fault: str = ""


def inspect_image(path: Path) -> Inspection:
    """Read and decode an image file completely, so that no use of it fails later."""
    try:
        size = path.stat().st_size
        if size == 0:
            return Inspection("", "the file is empty")
        if size > MAX_FILE_BYTES:
            return Inspection("", f"the file has {size:,} bytes, more than {MAX_FILE_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        return Inspection("", f"cannot be read: {error.strerror or error}")
    digest = hashlib.sha256(data).hexdigest()
    try:
        decode_rgb(data)
    except Exception as error:  # Decoders raise errors of any kind for damaged bytes.
        return Inspection(digest, _one_line(error))
    return Inspection(digest)


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an image file to mode RGB.

    Transparent parts become :data:`MATTE`. The EXIF orientation is applied, colour profiles are
    not. 16-bit greys are scaled to 8 bits by their whole range. Only the first of several frames
    is decoded.

    Args:
        data: The file's bytes, in one of :data:`FORMATS`.

    Raises:
        ValueError: The image has more than :data:`MAX_PIXELS`.
        Exception: Pillow raises errors of any class for damaged bytes.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        return to_rgb(_upright(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to RGB, transparent parts to :data:`MATTE`.

    >>> to_rgb(Image.new("RGBA", (1, 1), (200, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        image = _scale_to_8_bits(image)
    elif image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transformed = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert transformed is not None  # It is None only if converted in place.
        return transformed
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        matte = Image.new("RGBA", image.size, (*MATTE, 255))
        image = Image.alpha_composite(matte, image)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    # Older releases of Pillow open a 16-bit file in the 32-bit mode "I".
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Any error may come from damaged EXIF data; the pixels are intact.
        return image


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be decoded: {text[:200]}" if not isinstance(error, ValueError) else text[:200]
