"""Frozen pretrained towers and the cache of what they compute."""

from lib.encoders.features import Features, extract_features
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
    "TextTower",
    "TowerError",
    "extract_features",
    "load_image_tower",
    "load_text_tower",
    "resolve_device",
]
