"""Clusters in the embeddings: labels, measures of every run, t-SNE maps of a few, the claim."""

from lib.clusters.claim import (
    PRIMARY,
    at_equal_temperature,
    cluster_finding,
    compare_clusters,
    compare_measures,
    mean_temperatures,
)
from lib.clusters.maps import EXTENT, map_lesson, map_silhouettes, map_table, start_name
from lib.clusters.measures import MEASURES, NEIGHBOURS, measure_table, topic_table
from lib.clusters.topics import TOPICS, image_labels, topic_of

__all__ = [
    "EXTENT",
    "MEASURES",
    "NEIGHBOURS",
    "PRIMARY",
    "TOPICS",
    "at_equal_temperature",
    "cluster_finding",
    "compare_clusters",
    "compare_measures",
    "image_labels",
    "map_lesson",
    "map_silhouettes",
    "map_table",
    "mean_temperatures",
    "measure_table",
    "start_name",
    "topic_of",
    "topic_table",
]
