"""Retrieval recall and ranks, exact under ties, and the geometry of embeddings; needs only torch.

The recall of tied scores is its expectation when ties are broken at random (McSherry and Najork,
ECIR 2008), whatever the order of the gallery. A collapsed model scores chance.
"""

from .checks import Array, MetricsError, Values
from .gallery import recall_at_k
from .geometry import (
    COLLAPSE_SPREAD,
    alignment,
    collapsed,
    modality_gap,
    relative_alignment,
    spread,
    uniformity,
)
from .neighbours import hubness, k_occurrence, nearest, neighbour_purity, skewness
from .ranking import Ranks, ranks, ranks_from_embeddings
from .retrieval import (
    DirectionMetrics,
    PerQuery,
    RetrievalMetrics,
    retrieval_metrics,
    retrieval_metrics_from_embeddings,
)

__all__ = [
    "COLLAPSE_SPREAD",
    "Array",
    "DirectionMetrics",
    "MetricsError",
    "PerQuery",
    "Ranks",
    "RetrievalMetrics",
    "Values",
    "alignment",
    "collapsed",
    "hubness",
    "k_occurrence",
    "modality_gap",
    "nearest",
    "neighbour_purity",
    "ranks",
    "ranks_from_embeddings",
    "recall_at_k",
    "relative_alignment",
    "retrieval_metrics",
    "retrieval_metrics_from_embeddings",
    "skewness",
    "spread",
    "uniformity",
]
