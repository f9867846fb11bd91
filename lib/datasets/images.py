"""Image files of any kind to RGB, and to a verdict on whether they can be used."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MATTE = (255, 255, 255)
"""The colour that stands where an image is transparent: white."""
MAX_PIXELS = 50_000_000
"""Larger images are refused: a small file may claim to hold more pixels than memory does."""
MAX_FILE_BYTES = 256 << 20
"""Larger files are refused unread."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is decoded, whatever the file's name says. Other formats of Pillow may start programs."""
DECODING_VERSION = 1
"""Raise this when the same file would give other pixels; it is part of a corpus's fingerprint."""


@dataclass(frozen=True)
class Inspection:
    """On an image file: the SHA-256 of its bytes, and what is wrong with it (empty: nothing)."""

    sha256: str
    fault: str = ""


def inspect_image(path: Path) -> Inspection:
    """Read and decode an image file completely, to know now what would fail later."""
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
    except Exception as error:  # damaged bytes make the decoders raise errors of any kind
        return Inspection(digest, _one_line(error))
    return Inspection(digest)


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an image file to mode RGB.

    Transparent parts show :data:`MATTE`. The EXIF orientation is applied. 16-bit greys are scaled
    to 8 bits by their whole range. Of several frames the first counts; colour profiles do not.

    Args:
        data: The file's bytes, in one of :data:`FORMATS`.

    Raises:
        ValueError: The image has more than :data:`MAX_PIXELS`.
        Exception: What Pillow raises for damaged bytes; there is no common class.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        return to_rgb(_upright(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any of Pillow's modes to RGB, transparent parts to :data:`MATTE`.

    >>> to_rgb(Image.new("RGBA", (1, 1), (200, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        image = _scale_to_8_bits(image)
    elif image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transformed = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert transformed is not None  # it is None only for a conversion in place
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
    except Exception:  # damaged EXIF data, of which Pillow raises anything: the pixels are whole
        return image


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be decoded: {text[:200]}" if not isinstance(error, ValueError) else text[:200]
