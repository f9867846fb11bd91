"""Contrastive losses per query, their weighted mean, and the scheduled loss as a module."""

from .cached import cached_backward
from .gather import gather_pairs
from .per_query import (
    LOSSES,
    Loss,
    contrastive_loss,
    decoupled,
    hardest_negatives,
    info_nce,
    label_smoothing,
    multi_positive,
    rince,
    sigmoid,
    weighted_mean,
)
from .scheduled import ScheduledContrastiveLoss

__all__ = [
    "LOSSES",
    "Loss",
    "ScheduledContrastiveLoss",
    "cached_backward",
    "contrastive_loss",
    "decoupled",
    "gather_pairs",
    "hardest_negatives",
    "info_nce",
    "label_smoothing",
    "multi_positive",
    "rince",
    "sigmoid",
    "weighted_mean",
]
