"""What the steps of finished runs recorded: weights, temperatures and signals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.runs import STEP_COLUMNS, RunRecord


def mean_temperatures(replicated: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return ``method``, ``seed`` and ``temperature``: each run's mean over the steps until the
    epoch that validation chose.

    Args:
        replicated: Method to its records.
    """
    column = STEP_COLUMNS.index("temperature")
    return pd.DataFrame(
        [
            {
                "method": method,
                "seed": record.config.seed,
                "temperature": float(
                    record.steps[
                        : len(record.steps) * record.best_epoch // len(record.epochs), column
                    ].mean(dtype=np.float64)
                ),
            }
            for method, records in replicated.items()
            for record in records
        ]
    )


def path_table(replicated: Mapping[str, Sequence[RunRecord]], column: str) -> pd.DataFrame:
    """Return the path of a step column: mean, least and greatest over seeds at each step.

    Args:
        replicated: Method to its runs.
        column: One of :data:`lib.runs.STEP_COLUMNS`.
    """
    steps = pd.concat(
        record.step_table().assign(method=method)
        for method, records in replicated.items()
        for record in records
    )
    paths = steps.groupby(["method", "step"], sort=False)[column].agg(["mean", "min", "max"])
    return paths.rename(columns={"min": "low", "max": "high"}).reset_index()


def imbalance(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return how far the directions' variances differ, step by step: a row a seed and step.

    Returns:
        ``seed``, ``step``, ``row_variance``, ``column_variance`` (means over the batch's queries),
        and ``log_ratio`` = log(row_variance / column_variance).
    """
    tables = []
    for record in records:
        steps = record.step_table()
        rows, columns = (steps[f"signal_{d}"].clip(lower=1e-30) for d in ("i2t", "t2i"))
        tables.append(
            pd.DataFrame(
                {
                    "seed": record.config.seed,
                    "step": steps["step"],
                    "row_variance": rows,
                    "column_variance": columns,
                    "log_ratio": np.log(rows.astype(float) / columns.astype(float)),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def furthest_weight(records: Sequence[RunRecord]) -> float:
    """Return how far any weight was from 1, in any run and step."""
    weight = STEP_COLUMNS.index("weight_i2t")
    return max(float(abs(record.steps[:, weight] - 1).max()) for record in records)


def relative_weights(replicated: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return the weight of image → text where both are scaled to the sum 2, through training.

    Args:
        replicated: Method to its runs.

    Returns:
        ``method``, ``step``, and over seeds ``mean``, ``low`` and ``high``.
    """
    steps = pd.concat(
        record.step_table().assign(method=method)
        for method, records in replicated.items()
        for record in records
    )
    share = steps["weight_i2t"] / (steps["weight_i2t"] + steps["weight_t2i"])
    paths = (2 * share).groupby([steps["method"], steps["step"]], sort=False)
    table = paths.agg(["mean", "min", "max"]).rename(columns={"min": "low", "max": "high"})
    return table.reset_index()
