"""t-SNE maps of images and captions together, as the paper shows them, and how far to trust one.

A map is made by van der Maaten and Hinton's t-SNE (JMLR 9, 2008) as scikit-learn has it. What it
shows depends on its perplexity and its start as well as on the embeddings (Wattenberg, Viégas and
Johnson, "How to Use t-SNE Effectively", Distill, 2016), so that several of each are made.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.manifold import TSNE  # type: ignore[import-untyped]
from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lib.chapters.embeddings.measures import gallery_samples, labelled_pairs
from lib.chapters.embeddings.topics import image_labels, lexicon_digest
from lib.runs import RunConfig
from lib.training import Lab
from lib.utils.seeds import generator

EXTENT = 10.0
"""Each map is scaled so that its furthest coordinate is this: t-SNE's own scale means nothing."""
SETTINGS = ("seed", "perplexity", "start")


def tsne(points: NDArray[np.float64], perplexity: float, start: int) -> NDArray[np.float64]:
    """Return a t-SNE map of points, by cosine distance.

    Args:
        points: (n, d).
        perplexity: The effective number of neighbours, below n.
        start: 0 starts from the principal components; 1, 2 … are the states of random starts.

    Returns:
        (n, 2), the same on the same machine.
    """
    made = TSNE(
        metric="cosine",
        perplexity=perplexity,
        init="random" if start else "pca",
        random_state=start,
    )
    # Threads add in any order, and a difference in the last bit grows into another map.
    with threadpool_limits(limits=1):
        plane: NDArray[np.float64] = made.fit_transform(points.astype(np.float32)).astype(float)
    return plane


def start_name(start: int) -> str:
    """Return how a figure names a start.

    >>> start_name(0), start_name(2)
    ('principal components', 'random 2')
    """
    return f"random {start}" if start else "principal components"


def map_table(
    lab: Lab,
    chosen: Mapping[str, RunConfig],
    seeds: Sequence[int],
    *,
    perplexities: Sequence[float],
    random_starts: int,
    images: int,
) -> pd.DataFrame:
    """Train runs again and map labelled test images with their first captions.

    The table is kept in the store. It holds names, topics, links and coordinates; never a caption.

    Args:
        lab: Where to train, and where the table is kept.
        chosen: Method to configuration, all on one corpus.
        seeds: On which each is run.
        perplexities: Of the maps.
        random_starts: Maps from random starts beside the one from the principal components.
        images: How many labelled images are drawn, the same for all maps; all, if there are fewer.

    Returns:
        ``method``, ``seed``, ``perplexity``, ``start``, ``image``, ``topic``, ``modality``
        (``"image"`` or ``"caption"``), ``link`` (a page on the web, or None), ``x``, ``y``
        (rounded to 2 decimals).

    Raises:
        ValueError: A perplexity is too great for so few points.
    """
    if max(perplexities) >= 2 * images:
        raise ValueError(
            f"perplexity {max(perplexities):g} needs more than {2 * images} points; lower it, or "
            f"map more than {images} images"
        )
    runs = {c.with_seed(seed): (name, seed) for name, c in chosen.items() for seed in seeds}
    any_run = next(iter(runs))

    def compute() -> pd.DataFrame:
        samples = gallery_samples(lab, any_run)
        labels = image_labels(samples)
        parts = {}
        for config, encoder, data in lab.retrain(list(runs)):
            embedded = encoder(data.test.image, data.test.text)
            rows, first = labelled_pairs(data.test.caption_owner, labels)
            # The same images for every run: the draw depends on the gallery alone.
            drawn = np.sort(generator(0, "map").permutation(len(rows))[:images])
            rows, first = rows[drawn], first[drawn]
            sides = embedded.image[rows], embedded.text[first]
            points = np.concatenate([side.double().cpu().numpy() for side in sides])
            items = pd.DataFrame(
                {
                    "image": [samples[row].id for row in rows],
                    "topic": [labels[row] for row in rows],
                    "link": [samples[row].link for row in rows],
                }
            )
            items = pd.concat([items.assign(modality=m) for m in ("image", "caption")])
            parts[config] = [
                items.assign(perplexity=float(p), start=start, plane=list(tsne(points, p, start)))
                for p in perplexities
                for start in range(random_starts + 1)
            ]
        maps = [
            part.assign(method=method, seed=seed)
            for config, (method, seed) in runs.items()
            for part in parts[config]
        ]
        for part in maps:
            part[["x", "y"]] = _laid_out(part, like=maps[0])
        columns = ["method", *SETTINGS, "image", "topic", "modality", "link", "x", "y"]
        return pd.concat(maps)[columns]

    key = {
        "runs": {config.run_id: method for config, (method, _) in runs.items()},
        "perplexities": [float(p) for p in perplexities],
        "random_starts": random_starts,
        "images": images,
        "extent": EXTENT,
        "lexicon": lexicon_digest(),
    }
    return lab.store.table("embedding-maps", key, compute)


def map_silhouettes(maps: pd.DataFrame) -> pd.DataFrame:
    """Return the silhouette of the topics in the plane of each map of :func:`map_table`: columns
    ``method``, ``seed``, ``perplexity``, ``start`` and ``silhouette`` (rounded to 4 decimals)."""
    rows = []
    for keys, points in maps.groupby(["method", *SETTINGS], sort=False):
        value = silhouette_score(points[["x", "y"]], points["topic"])
        rows.append((*keys, round(float(value), 4)))
    return pd.DataFrame(rows, columns=["method", *SETTINGS, "silhouette"])


def map_lesson(silhouettes: pd.DataFrame, method: str, baseline: str = "fixed") -> str:
    """Return sentences on how much a map depends on its settings and how much on the method.

    Args:
        silhouettes: Of :func:`map_silhouettes`.
        method: What is compared with the baseline, at equal settings.
        baseline: A method.
    """
    by_run = silhouettes.groupby(["method", "seed"])["silhouette"].agg(["min", "max"])
    settings = by_run["max"] - by_run["min"]
    shown = by_run.loc[settings.idxmax()]
    by_settings = silhouettes.groupby(["method", "seed", "perplexity"])["silhouette"]
    starts = by_settings.max() - by_settings.min()
    means = silhouettes.groupby(["method", "seed"])["silhouette"].mean()
    between_seeds = means.groupby("method").agg(lambda run: run.max() - run.min())
    pairs = silhouettes.pivot(index=list(SETTINGS), columns="method", values="silhouette")
    gains = pairs[method] - pairs[baseline]
    return (
        "In the plane, the silhouette of topics of *one and the same run* goes from "
        f"{shown['min']:.3f} to {shown['max']:.3f} as perplexity and start change (the widest "
        f"range of a run here; the mean of all is {settings.mean():.3f}), by up to "
        f"{starts.max():.3f} with the start alone. From one training seed to another it moves by "
        f"{between_seeds[baseline]:.3f}, on average over the maps of {baseline}. Between "
        f"{baseline} and {method}, at the same settings, it changes by {gains.mean():+.4f} on "
        f"average, from {gains.min():+.3f} to {gains.max():+.3f}; {method} looks the more distinct "
        f"in {int((gains > 0).sum())} of {len(gains)} pairs of maps."
    )


def _laid_out(part: pd.DataFrame, like: pd.DataFrame) -> NDArray[np.float64]:
    """Turn or mirror a map towards another, centre and scale it; ratios of distances stay."""
    plane, target = (np.stack(list(p["plane"])) for p in (part, like))
    turned = plane @ orthogonal_procrustes(plane, target)[0]
    turned -= (turned.max(axis=0) + turned.min(axis=0)) / 2
    rounded: NDArray[np.float64] = np.round(turned * (EXTENT / np.abs(turned).max()), 2) + 0.0
    return rounded
