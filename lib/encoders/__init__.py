"""Frozen pretrained towers and the cache of their features."""

from lib.encoders.features import Features, Rows, extract_captions, extract_features, extract_images
from lib.encoders.towers import (
    IMAGE_TOWERS,
    TEXT_TOWERS,
    ImageTower,
    TextTower,
    TowerError,
    load_image_tower,
    load_text_tower,
    resolve_device,
)

__all__ = [
    "IMAGE_TOWERS",
    "TEXT_TOWERS",
    "Features",
    "ImageTower",
    "Rows",
    "TextTower",
    "TowerError",
    "extract_captions",
    "extract_features",
    "extract_images",
    "load_image_tower",
    "load_text_tower",
    "resolve_device",
]
