"""Scheduled weights against fixed ones: rivals, power, and all metrics in one grid."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lib.chapters.shared.figures import METRICS, signed
from lib.chapters.shared.verdicts import FAMILY, PAPER_METHOD, against, mostly_identical
from lib.statistics import minimum_detectable_effect, power


def difference_grid(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of :func:`lib.chapters.shared.verdicts.against_on_all` as methods × metrics, each
    cell an estimate and the sign of its verdict."""
    signs = {"improves": " ▲", "worsens": " ▼", "equivalent": " =", "undecided": ""}
    cells = table.assign(
        cell=[signed(row.estimate) + signs[row.verdict] for row in table.itertuples()]
    )
    grid = cells.pivot(index="method", columns="metric", values="cell")
    grid = grid.loc[table["method"].drop_duplicates(), list(METRICS)]
    return grid.rename(columns=METRICS).rename_axis(columns=None).reset_index()


def power_table(table: pd.DataFrame, gains: Mapping[str, float]) -> pd.DataFrame:
    """Return the size of effect that each comparison finds with probability 0.8, and how likely it
    finds the gain that the paper reports; of methods that move most runs.

    Args:
        table: Rows of :func:`against`.
        gains: Metric to the gain that the paper reports, in points.
    """
    moving = [not mostly_identical(row.identical, row.seeds) for row in table.itertuples()]
    table = table[moving]
    alpha = 0.05 / FAMILY
    paper = table["metric"].map(gains)
    spreads = list(zip(table["deviation"], table["seeds"], strict=True))
    return pd.DataFrame(
        {
            "method": table["method"],
            "metric": table["metric"],
            "sd of differences": table["deviation"],
            "found with probability 0.8": [
                minimum_detectable_effect(deviation, seeds, alpha=alpha)
                for deviation, seeds in spreads
            ],
            "the paper's gain": paper,
            "is found with probability": [
                power(gain, deviation, seeds, alpha)
                for gain, (deviation, seeds) in zip(paper, spreads, strict=True)
            ],
        }
    )


def against_rivals(runs: pd.DataFrame, rivals: Sequence[str], margin: float) -> pd.DataFrame:
    """Compare the paper's method with each rival, one family; columns as in :func:`against`,
    each difference the paper's method minus the rival."""
    table = against(runs[runs["method"].isin([PAPER_METHOD, *rivals])], PAPER_METHOD, margin)
    reversed_verdicts = {"improves": "worsens", "worsens": "improves"}
    return table.assign(
        method=table["baseline"],
        baseline=table["method"],
        estimate=-table["estimate"],
        low=-table["high"],
        high=-table["low"],
        wide_low=-table["wide_high"],
        wide_high=-table["wide_low"],
        verdict=table["verdict"].replace(reversed_verdicts),
    )
