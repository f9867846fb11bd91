"""Projection heads over frozen features, trained or in closed form, and a learned temperature."""

from .closed_form import canonical_heads
from .heads import DualEncoder, Embeddings, LearnedTemperature, ProjectionHead, matmul

__all__ = [
    "DualEncoder",
    "Embeddings",
    "LearnedTemperature",
    "ProjectionHead",
    "canonical_heads",
    "matmul",
]
