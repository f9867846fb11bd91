"""Small made-up corpora on disk, in the layouts of the real ones."""

import io
from pathlib import Path

from PIL import Image

SPLIT_FILES = {"train": "trainImages", "val": "devImages", "test": "testImages"}


def picture(colour="red", *, mode="RGB", size=(16, 16), format="JPEG", **options) -> bytes:
    """Return the bytes of an image file; other colours give other bytes."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format, **options)
    return buffer.getvalue()


def noisy_picture(seed=0, size=(64, 64)) -> bytes:
    """Return the bytes of a JPEG of a few kilobytes, large enough to be cut."""
    buffer = io.BytesIO()
    Image.effect_noise(size, 60 + seed).convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def pictures(*names: str) -> dict[str, bytes]:
    """Return one small image per name; no two have the same bytes."""
    return {name: picture((40 * row % 256, 90, row)) for row, name in enumerate(names)}


def tokens(**captions: str) -> str:
    """Return the text of a token file; the arguments map names without ``.jpg`` to captions."""
    return "".join(f"{name}.jpg#0\t{text}\n" for name, text in captions.items())


def write_official(root, images, text, splits=None, *, folder="Flicker8k_Dataset", texts="."):
    """Write the official layout: images by name, a token file, names by split."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / texts).mkdir(exist_ok=True)
    for name, data in images.items():
        (root / folder / name).write_bytes(data)
    write_text(root / texts / "Flickr8k.token.txt", text)
    write_splits(root / texts, splits or {})
    return root


def write_splits(folder, splits, end="\n"):
    """Write a file of image names per split, after an empty line."""
    for split, names in splits.items():
        write_text(folder / f"Flickr_8k.{SPLIT_FILES[split]}.txt", end.join(["", *names, ""]))


def write_kaggle(root, images, text):
    """Write the Kaggle layout."""
    (root / "Images").mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (root / "Images" / name).write_bytes(data)
    write_text(root / "captions.txt", text)
    return root


def write_text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path
