"""Names from which several parts of the package choose."""

from typing import Literal

Signal = Literal["variance", "entropy", "spread"]

Actuator = Literal["direction", "magnitude", "sharpness", "sample"]

Method = Literal[
    "learned τ",
    "variance × direction",
    "entropy × direction",
    "spread × direction",
    "variance × sharpness",
    "entropy × sharpness",
    "spread × sharpness",
]

Condition = Literal[
    "default",
    "batches of 16",
    "batches of 512",
    "a tenth of the images",
    "uncentred features",
    "deep image head",
    "deep text head",
    "40 % mismatched pairs",
    "cold temperature",
]

Factor = Literal[
    "batch size",
    "temperature",
    "γ",
    "smoothing β",
    "warm-up",
    "embedding size",
    "hidden layers",
    "dropout",
    "weight decay",
    "captions an image",
    "towers",
]

CaptionNoise = Literal["word drop", "word swap", "substitution", "typing errors", "shuffled order"]

TrainedTowers = Literal["from scratch", "last blocks"]

ImageNoise = Literal["Gaussian noise", "Gaussian blur", "occlusion", "JPEG"]
