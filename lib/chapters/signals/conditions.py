"""The conditions under which the two directions' signals are compared."""

from collections.abc import Mapping
from typing import Any, NamedTuple

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "batches of 16": {"batch_size": 16},
    "batches of 512": {"batch_size": 512},
    "a tenth of the images": {},
    "uncentred features": {"centre": False},
    "deep image head": {"hidden_layers": 1, "text_hidden_layers": 0},
    "deep text head": {"hidden_layers": 0, "text_hidden_layers": 1},
    "40 % mismatched pairs": {"noise": {"kind": "mismatched", "rate": 0.4}},
    "cold temperature": {"temperature": 0.05},
}
"""Conditions in which the two variances might differ, and what each changes in a configuration."""

TENTH = "a tenth of the images"


class Compared(NamedTuple):
    """A method under one of :data:`CONDITIONS`."""

    condition: str
    method: str
