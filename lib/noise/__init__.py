"""Noise in captions and images, of many kinds and in five severities, from a seed."""

from lib.noise.captions import CAPTION_KINDS, corrupt_caption
from lib.noise.checks import SEVERITIES
from lib.noise.corpus import Corrupted, Noise, corrupt
from lib.noise.images import IMAGE_KINDS, corrupt_image
from lib.noise.training import TRAINING_SEVERITY, training_features

__all__ = [
    "CAPTION_KINDS",
    "IMAGE_KINDS",
    "SEVERITIES",
    "TRAINING_SEVERITY",
    "Corrupted",
    "Noise",
    "corrupt",
    "corrupt_caption",
    "corrupt_image",
    "training_features",
]
