"""Robustness: what a method loses to noise, and how that differs from what the fixed loss loses.

*Training noise* is in the pairs that a run trains on; validation and test are clean. *Test noise*
is in the captions or images of the test split; the runs were trained on clean pairs. A run's
degradation is its clean metric minus its noisy one, in points. Methods are compared by the paired
*difference in degradation*, so that a method that is better with and without noise does not count
as robust.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.chapters.shared.findings import Finding
from lib.chapters.shared.tuning import replicate, results_table
from lib.chapters.shared.verdicts import (
    FAMILY,
    PAPER_METHOD,
    PRIMARY_METRICS,
    answer_claim,
    detectable,
)
from lib.encoders import extract_captions, extract_images
from lib.metrics import retrieval_metrics_from_embeddings
from lib.noise import Noise, corrupt
from lib.noise.corpus import NOISE_VERSION
from lib.runs import EPOCH_COLUMNS, NoiseConfig, RunConfig
from lib.statistics import compare_methods, comparison_table
from lib.training import Lab
from lib.utils.progress import track

RECALLS = EPOCH_COLUMNS[1:]
"""The six recalls in percent and their sum."""

JUDGED: Mapping[tuple[str, str], float] = {
    ("training", "mismatched"): 0.4,
    ("training", "captions"): 0.8,
    ("training", "images"): 0.8,
    ("test", "captions"): 3,
    ("test", "images"): 3,
}
"""(Training or test, what is noisy) to the rate or severity at which the claim is judged; of test
noise, the mean over its kinds."""


class TrainedWith(NamedTuple):
    """A method and the noise in its training pairs; a ``level`` of 0 is none."""

    method: str
    what: str
    level: float


def condition_name(place: str, what: str, level: float) -> str:
    """Return how tables and figures name noise.

    >>> condition_name("training", "mismatched", 0.4), condition_name("test", "images", 3)
    ('40 % mismatched pairs', 'test images, severity 3')
    """
    if place == "test":
        return f"test {what}, severity {level:g}"
    return f"{100 * level:g} % {'mismatched pairs' if what == 'mismatched' else f'noisy {what}'}"


def judged_too(place: str, what: str, levels: Sequence[float]) -> list[float]:
    """Return rates or severities in order, including the one at which the claim is judged.

    >>> judged_too("training", "mismatched", [0.8])
    [0.4, 0.8]
    """
    return sorted({*levels, JUDGED[place, what]})


def noise_in_training(
    lab: Lab,
    chosen: Mapping[str, RunConfig],
    seeds: Sequence[int],
    rates: Mapping[str, Sequence[float]],
) -> pd.DataFrame:
    """Train every method with noise in its training pairs, its constants as tuned without noise.

    Args:
        lab: Where to train.
        chosen: Method to its configuration, without noise.
        seeds: The paired seeds.
        rates: ``"mismatched"``, ``"captions"``, ``"images"`` to shares above 0 of noisy pairs.

    Returns:
        One row per run: ``method``, ``seed``, ``what``, ``level`` (the rate) and :data:`RECALLS`,
        on the clean test split. Each key of ``rates`` has the clean runs once, at level 0.
    """
    cells: dict[TrainedWith, RunConfig] = {}
    for method, config in chosen.items():
        for what, levels in rates.items():
            cells[TrainedWith(method, what, 0.0)] = config
            for level in levels:
                noise = NoiseConfig.model_validate({"kind": what, "rate": level})
                noisy = config.model_copy(update={"noise": noise})
                cells[TrainedWith(method, what, level)] = noisy
    runs = results_table(replicate(lab, cells, seeds))
    return runs[["method", "seed", "what", "level", *RECALLS]]


def noise_at_test(
    lab: Lab,
    chosen: Mapping[str, RunConfig],
    seeds: Sequence[int],
    kinds: Sequence[str],
    severities: Sequence[int],
) -> pd.DataFrame:
    """Measure finished runs on a test split with noise in every caption, or in every image.

    The noise is drawn once and is the same for every run. The table is kept in the store.

    Args:
        lab: Where to train, and where the table is kept.
        chosen: Method to its configuration; all on the same corpus and towers.
        seeds: The paired seeds.
        kinds: Of :data:`lib.noise.CAPTION_KINDS` and :data:`lib.noise.IMAGE_KINDS`.
        severities: Of 1 to 5.

    Returns:
        ``method``, ``seed``, ``what`` (``"captions"`` or ``"images"``), ``kind``, ``level`` (the
        severity) and :data:`RECALLS`. Each kind has the clean rows once, at level 0.

    Raises:
        ValueError: A kind or a severity is unknown.
    """
    noises = [Noise(kind, severity) for kind in kinds for severity in severities]
    cells = [(m, config.with_seed(seed)) for m, config in chosen.items() for seed in seeds]
    runs = list(dict.fromkeys(run for _, run in cells))
    records = lab.train(runs)
    table = lab.store.table(
        "noise-at-test",
        {
            "runs": [run.run_id for run in runs],
            "corpus": records[0].corpus_fingerprint,
            "noises": [[noise.kind, noise.severity] for noise in noises],
            "noise_version": NOISE_VERSION,
        },
        lambda: _measure_all(lab, runs, noises),
    )
    names = pd.DataFrame(
        [{"method": method, "seed": run.seed, "run": run.run_id} for method, run in cells]
    )
    what = {noise.kind: noise.modality for noise in noises}
    table.insert(1, "what", table["kind"].map(what))
    return names.merge(table, on="run").drop(columns="run")


def _measure_all(lab: Lab, runs: Sequence[RunConfig], noises: Sequence[Noise]) -> pd.DataFrame:
    features = _noisy_features(lab, runs[0], noises)
    rows = []
    for run, encoder, data in lab.retrain(runs):
        owner = data.test.caption_owner
        image, text = encoder(data.test.image, data.test.text)
        clean = _measure(image, text, owner)
        for kind in dict.fromkeys(noise.kind for noise in noises):
            rows.append({"run": run.run_id, "kind": kind, "level": 0, **clean})
        for noise, noisy in features.items():
            noisy = noisy.to(data.device)
            if noise.modality == "captions":
                measured = _measure(image, encoder.text(noisy), owner)
            else:
                measured = _measure(encoder.image(noisy), text, owner)
            rows.append(
                {"run": run.run_id, "kind": noise.kind, "level": noise.severity, **measured}
            )
    return pd.DataFrame(rows)


def _noisy_features(lab: Lab, run: RunConfig, noises: Sequence[Noise]) -> dict[Noise, Tensor]:
    corpus = lab.load_corpus(run.corpus, run.on_bad_sample)
    found = {}
    for noise in track(noises, "noisy test splits"):
        noisy = corrupt(corpus, noise, ["test"])
        if noise.modality == "captions":
            rows = extract_captions(noisy, run.text_tower, lab.device)
        else:
            rows = extract_images(noisy, run.image_tower, lab.device)
        found[noise] = torch.from_numpy(np.array(rows.values))
    return found


def _measure(image: Tensor, text: Tensor, owner: Tensor) -> dict[str, float]:
    measured = retrieval_metrics_from_embeddings(image, text, owner)
    values = [float(value) for value in (*measured.recalls, measured.rsum)]
    return dict(zip(RECALLS, [round(value, 9) for value in values], strict=True))


def over_kinds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over the kinds of a table of :func:`noise_at_test`, without ``kind``."""
    grouped = table.groupby(["method", "seed", "what", "level"], sort=False)
    return grouped[list(RECALLS)].mean().reset_index()


def degradation(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each run loses to noise: its clean metrics minus its noisy ones, in points.

    Args:
        table: Of :func:`noise_in_training`, :func:`noise_at_test` or :func:`over_kinds`.

    Returns:
        The noisy rows, with what is lost in place of the metrics.

    >>> rows = {"method": "fixed", "seed": [0, 0], "what": "images", "level": [0.0, 0.8]}
    >>> lost = degradation(pd.DataFrame(rows).assign(**dict.fromkeys(RECALLS, [40.0, 34.5])))
    >>> lost[["level", "rsum"]].to_numpy().tolist()
    [[0.8, 5.5]]
    """
    keys = [name for name in ("method", "seed", "what", "kind") if name in table]
    clean = table[table["level"] == 0].set_index(keys)[list(RECALLS)]
    noisy = table[table["level"] > 0].set_index(keys)
    lost = clean.loc[noisy.index].to_numpy() - noisy[list(RECALLS)].to_numpy()
    noisy[list(RECALLS)] = lost
    return noisy.reset_index()


def compare_degradation(
    training: pd.DataFrame,
    test: pd.DataFrame,
    margin: float,
    *,
    baseline: str = "fixed",
    claimed: str = PAPER_METHOD,
) -> pd.DataFrame:
    """Compare what every method loses with what the baseline loses, at the :data:`JUDGED` noise.

    Args:
        training: Of :func:`noise_in_training`.
        test: Of :func:`noise_at_test`.
        margin: Points within which a difference is none.
        baseline: What is compared with.
        claimed: The method that the claim is about.

    Returns:
        Columns as in :func:`lib.statistics.comparison_table`, in points (a positive difference is
        a greater loss), and ``condition`` and ``primary``: whether the method is ``claimed``.

    Raises:
        ValueError: ``baseline`` or ``claimed`` is not among the methods, a table lacks noise at
            which the claim is judged, or the seeds don't match.
    """
    places = {"training": degradation(training), "test": degradation(over_kinds(test))}
    judged = []
    for (place, what), level in JUDGED.items():
        condition, lost = condition_name(place, what, level), places[place]
        lost = lost[(lost["what"] == what) & (lost["level"] == level)]
        if lost.empty:
            raise ValueError(f"there are no runs with {condition}")
        judged.append(lost[["method", "seed", *PRIMARY_METRICS]].assign(condition=condition))
    table = pd.concat(judged, ignore_index=True)
    order = training["method"].unique().tolist()
    for method in (baseline, claimed):
        if method not in order:
            raise ValueError(f"{method!r} is not among the methods {order}; run it too")
    compared = compare_methods(
        table,
        baseline,
        list(PRIMARY_METRICS),
        margin=margin,
        family=FAMILY,
        lower_is_better=list(PRIMARY_METRICS),
        within="condition",
    )
    found = comparison_table(compared, PRIMARY_METRICS, within="condition")
    found = found.assign(primary=found["method"] == claimed)
    place_in_order = found["method"].map(order.index)
    return found.iloc[place_in_order.argsort(kind="stable")].reset_index(drop=True)


def robustness_finding(
    notebook: str, compared: pd.DataFrame, *, corpus: str, train_images: int, margin: float
) -> Finding:
    """Answer claim 3, that the paper's scheduler loses less to noise.

    *equivalent* if every comparison is; *improves* if it loses less in each of the conditions, by
    one metric at least, and nowhere more; *worsens* likewise; else *undecided*.

    Args:
        notebook, corpus, train_images: As for :func:`lib.chapters.shared.verdicts.judge`.
        compared, margin: Of :func:`compare_degradation`; the primary rows are the answer.
    """
    table = compared[compared["primary"]]
    counts = table["verdict"].value_counts()
    remarks = (
        f"Of {len(table)} comparisons, "
        f"{table['condition'].nunique()} kinds of noise in both directions, "
        f"{', '.join(f'{count} {name}' for name, count in counts.items())}. "
        f"Differences within ±{margin:g} points count as none."
    )
    lost = table["metric"] + " lost with " + table["condition"]
    return answer_claim(
        3,
        notebook,
        table.assign(metric=lost),
        remarks,
        detectable(table, "points"),
        corpus=corpus,
        train_images=train_images,
        measure="R@1 lost to noise, ",
        by="condition",
    )
