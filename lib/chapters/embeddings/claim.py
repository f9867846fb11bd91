"""The claim that the paper's scheduler separates the embeddings more clearly, put to the test.

The claim has two measures, set before either was computed: the alignment of matched pairs, and the
silhouette of topics over images and captions together. The others describe what changed. Both
follow the temperature at which a model is trained, so that a scheduler of the temperature is also
compared with the fixed loss at the same one.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.chapters.embeddings.measures import MEASURES
from lib.chapters.shared.findings import Finding
from lib.chapters.shared.verdicts import FAMILY, answer_claim, claim_rows
from lib.statistics import (
    compare_methods,
    comparison_table,
    minimum_detectable_effect,
    paired_comparison,
)

PRIMARY_MEASURES: Mapping[str, str] = {
    "alignment": "alignment (lower is better)",
    "silhouette": "silhouette (higher is better)",
}
"""The claim's own measures and how a figure heads them."""

UNITS = {"alignment": "squared distance", "silhouette": "of 1"}

LOWER_IS_BETTER = ("alignment",)

SCALES = {"alignment": 2.0, "silhouette": 1.0}
"""From no structure to a perfect one: the squared distance of unrelated unit vectors is 2 and that
of equal ones 0; the silhouette of no clusters is 0 and that of perfect ones 1."""


def compare_clusters(runs: pd.DataFrame, margin: float, baseline: str = "fixed") -> pd.DataFrame:
    """Compare every method with the baseline on the claim's two measures, one family.

    Args:
        runs: Of :func:`measure_table`.
        margin: Percent of a measure's scale (:data:`SCALES`) within which a difference is none.
        baseline: A method.

    Returns:
        Columns as in :func:`lib.statistics.comparison_table`, ``margin`` in the measure's unit.
    """
    margins = {measure: margin / 100 * scale for measure, scale in SCALES.items()}
    compared = compare_methods(
        runs,
        baseline,
        list(PRIMARY_MEASURES),
        margin=margins,
        family=FAMILY,
        lower_is_better=LOWER_IS_BETTER,
    )
    return comparison_table(compared, PRIMARY_MEASURES)


def compare_measures(runs: pd.DataFrame, baseline: str = "fixed") -> pd.DataFrame:
    """Compare every method with the baseline on all measures.

    There are no verdicts: most measures have no margin, and some no better direction.

    Args:
        runs: Of :func:`measure_table`.
        baseline: A method.

    Returns:
        Columns as in :func:`lib.statistics.comparison_table`, without ``verdict``.
    """
    compared = compare_methods(runs, baseline, list(MEASURES), family=FAMILY)
    return comparison_table(compared).drop(columns="verdict")


def at_equal_temperature(
    runs: pd.DataFrame, curve: pd.DataFrame, baseline: str = "fixed"
) -> pd.DataFrame:
    """Compare methods with the baseline as tuned, and with the fixed loss at their own temperature.

    At each seed the fixed loss's measures are interpolated along log τ.

    Args:
        runs: One row per run: ``method``, ``seed``, ``temperature`` and the measures.
        curve: The same for the fixed loss at several temperatures, on seeds that ``runs`` has too.
        baseline: The fixed loss as tuned, among ``runs``.

    Returns:
        One row per method and primary measure, over the curve's seeds: ``method``,
        ``temperature`` (mean), ``measure``, ``tuned`` and ``tuned_half``, ``equal`` and
        ``equal_half``: the mean paired differences and half-widths of their 95 % intervals. A
        temperature outside the curve's is compared with the curve's end.
    """
    seeds = sorted(curve["seed"].unique())
    paths = {seed: rows.sort_values("temperature") for seed, rows in curve.groupby("seed")}
    shared = runs[runs["seed"].isin(seeds)]
    tuned = shared[shared["method"] == baseline].set_index("seed")
    found = []
    for method, rows in shared[shared["method"] != baseline].groupby("method", sort=False):
        own = rows.set_index("seed")
        for measure in PRIMARY_MEASURES:
            equal = {
                seed: float(
                    np.interp(
                        np.log(own["temperature"][seed]),
                        np.log(paths[seed]["temperature"]),
                        paths[seed][measure],
                    )
                )
                for seed in seeds
            }
            row = {"method": method, "temperature": own["temperature"].mean(), "measure": measure}
            for name, other in (("tuned", tuned[measure]), ("equal", equal)):
                compared = paired_comparison(own[measure], other)
                row |= {name: compared.estimate, f"{name}_half": compared.high - compared.estimate}
            found.append(row)
    return pd.DataFrame(found)


def cluster_finding(
    notebook: str, compared: pd.DataFrame, *, corpus: str, train_images: int, margin: float
) -> Finding:
    """Answer claim 4, that the paper's scheduler separates the embeddings more clearly.

    Args:
        notebook, corpus, train_images: As for :func:`lib.chapters.shared.verdicts.judge`.
        compared, margin: Of :func:`compare_clusters`.
    """
    table = claim_rows(compared)
    headings = {heading: measure for measure, heading in PRIMARY_MEASURES.items()}
    effects = [
        f"{minimum_detectable_effect(row.deviation, row.seeds, alpha=0.05 / FAMILY):.2g} "
        f"in {headings[row.metric]}"
        for row in table.itertuples()
        # Of a method that does next to nothing, the spread tells what rounding can show.
        if row.deviation > row.margin / 100
    ]
    rows = table.assign(
        unit=[UNITS[headings[metric]] for metric in table["metric"]],
        train_images=train_images,
    )
    return answer_claim(
        4,
        notebook,
        rows,
        f"Differences within {margin:g} % of the way from no structure to a perfect one count as "
        "none.",
        " or ".join(effects),
        corpus=corpus,
        train_images=train_images,
        place="in the alignment of matched pairs and the silhouette of topics, on the test split "
        "of",
    )
