"""The settings that are moved one at a time, and the values that each gets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Changes = Mapping[str, Any]

FACTORS: Mapping[str, Mapping[str, Changes]] = {
    "batch size": {"512": {"batch_size": 512}},
    "temperature": {"0.05": {"temperature": 0.05}, "0.2": {"temperature": 0.2}},
    "embedding size": {"64": {"embedding_dim": 64}},
    "hidden layers": {
        "1": {"hidden_layers": 1},
        "1, image alone": {"hidden_layers": 1, "text_hidden_layers": 0},
        "1, text alone": {"text_hidden_layers": 1},
    },
    "dropout": {"0.5": {"dropout": 0.5}},
    "weight decay": {"1": {"weight_decay": 1.0}},
    "captions an image": {"1": {"captions_per_image": 1}},
    "towers": {
        "larger image tower": {"image_tower": "efficientnet-lite1"},
        "words alone": {"text_tower": "minilm@0"},
    },
    "γ": {"−10": {"gamma": -10.0}, "1": {"gamma": 1.0}},
    "smoothing β": {"0": {"beta": 0.0}, "0.99": {"beta": 0.99}},
    "warm-up": {"40 steps": {"warmup": 40}},
}
"""Factor to its levels, without the default, and what each changes in a run's configuration; γ, β
and the warm-up are settings of the paper's scheduler, which the other methods do not have."""

OF_THE_SCHEDULER = ("γ", "smoothing β", "warm-up")
DEFAULT = ("default", "as tuned")


class Level(NamedTuple):
    """A method at a value of a factor."""

    factor: str
    value: str
    method: str
