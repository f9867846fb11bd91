"""Decoding of image files of every kind."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from corpora import noisy_picture, picture
from PIL import Image

from lib.datasets import images
from lib.datasets.images import decode_rgb, inspect_image, to_rgb


def saved(image, format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
MODES += ["LA", "PA", "RGBX", "RGBa", "La", "I;16", "I;16L", "I;16B"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_becomes_rgb(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = to_rgb(Image.new(mode, (3, 2)))
    assert (converted.mode, converted.size) == ("RGB", (3, 2))


def test_transparent_parts_are_mixed_with_white():
    # Black with alpha 128 of 255, over white: 255 - 128 = 127.
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
    assert to_rgb(Image.new("LA", (1, 1), (0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize(("mode", "colour", "key"), [("L", 7, 7), ("RGB", (9, 8, 7), (9, 8, 7))])
def test_the_colour_that_marks_transparency_becomes_white(mode, colour, key):
    data = saved(Image.new(mode, (2, 2), colour), transparency=key)
    assert decode_rgb(data).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_greys_are_scaled_over_their_whole_range():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    decoded = np.asarray(decode_rgb(saved(Image.fromarray(values))))[0, :, 0]
    # value / 257, rounded: 0, 0.498, 0.502, 1, 127.502, 255.
    assert decoded.tolist() == [0, 0, 1, 1, 128, 255]


def test_a_16_bit_tiff_is_read_in_either_byte_order():
    values = np.array([[0, 257, 65535]], np.uint16)
    for mode, dtype in (("I;16", "<u2"), ("I;16B", ">u2")):
        image = Image.frombytes(mode, (3, 1), values.astype(dtype).tobytes())
        assert np.asarray(decode_rgb(saved(image, "TIFF")))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation):
    # The upright photograph, and the turned one that a camera stores.
    seen = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).convert("RGB")
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = seen.transpose(undo[orientation]) if orientation in undo else seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_rgb(saved(stored, exif=exif)), seen)


def test_damaged_exif_leaves_the_pixels_usable():
    data = picture("red", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_rgb(data).size == (16, 16)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_the_format_comes_from_the_content_not_the_name(tmp_path, format):
    path = tmp_path / "p1.jpg"
    path.write_bytes(picture("red", format=format))
    assert inspect_image(path).fault == ""


def test_formats_are_recognised_in_a_fresh_interpreter(tmp_path):
    path = tmp_path / "p1.tif"
    path.write_bytes(picture("red", format="TIFF"))
    code = (
        "import sys, pathlib; from lib.datasets.images import inspect_image; "
        "sys.exit(inspect_image(pathlib.Path(sys.argv[1])).fault or 0)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


UNKNOWN = "not an image of a known format"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        *((noisy_picture()[:kept], "") for kept in (1, 20, 200, 1000)),
        (saved(Image.effect_noise((64, 64), 80))[:2000], ""),
        (b"", "the file is empty"),
        (b"<html>404</html>", UNKNOWN),
        (picture("red", format="EPS"), UNKNOWN),  # Decoding this would run another program.
    ],
)
def test_a_file_that_is_not_a_whole_image_is_reported(tmp_path, data, fault):
    path = tmp_path / "p1.jpg"
    path.write_bytes(data)
    found = inspect_image(path).fault
    assert found
    assert found == (fault or found)


def test_files_above_the_limit_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    path = tmp_path / "p1.jpg"
    path.write_bytes(picture("red"))
    assert "more than 10" in inspect_image(path).fault
