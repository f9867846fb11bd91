"""Scheduled weights against fixed ones: rivals, power, and all metrics in one grid."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lib.chapters.shared.figures import METRICS, signed
from lib.chapters.shared.verdicts import PAPER_METHOD, against
from lib.statistics import minimum_detectable_effect


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
    """Return the size of effect that each comparison finds with probability 0.8.

    Args:
        table: Rows of :func:`against`.
        gains: Metric to the gain that the paper reports, in points.
    """
    effects = [
        [
            minimum_detectable_effect(row.deviation, row.seeds, alpha=alpha)
            for row in table.itertuples()
        ]
        for alpha in (0.05, 0.05 / len(table))
    ]
    return pd.DataFrame(
        {
            "method": table["method"],
            "metric": table["metric"],
            "the paper's gain": table["metric"].map(gains),
            "sd of differences": table["deviation"],
            "found alone": effects[0],
            "found in this table": effects[1],
        }
    )


def against_rivals(runs: pd.DataFrame, rivals: Sequence[str], margin: float) -> pd.DataFrame:
    """Compare the paper's method with each rival, one Holm family; columns as in :func:`against`,
    each difference the paper's method minus the rival."""
    table = against(runs[runs["method"].isin([PAPER_METHOD, *rivals])], PAPER_METHOD, margin)
    reversed_verdicts = {"improves": "worsens", "worsens": "improves"}
    return table.assign(
        method=table["baseline"],
        baseline=table["method"],
        estimate=-table["estimate"],
        low=-table["high"],
        high=-table["low"],
        verdict=table["verdict"].replace(reversed_verdicts),
    )
