"""What the steps of finished runs recorded: weights, temperatures and signals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib.runs import STEP_COLUMNS, RunRecord


def mean_temperatures(replicated: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return ``method``, ``seed`` and ``temperature``: each run's mean over the steps until the
    epoch that validation chose, from each method's records."""
    rows = []
    for method, records in replicated.items():
        for record in records:
            until = len(record.steps) * record.best_epoch // len(record.epochs)
            steps = record.steps[:until, STEP_COLUMNS.index("temperature")]
            rows.append((method, record.config.seed, float(steps.mean(dtype=np.float64))))
    return pd.DataFrame(rows, columns=["method", "seed", "temperature"])


def _over_seeds(
    replicated: Mapping[str, Sequence[RunRecord]], value: Callable[[pd.DataFrame], pd.Series]
) -> pd.DataFrame:
    """Return ``method``, ``step`` and a value of the step tables: ``mean``, ``low``, ``high``."""
    steps = pd.concat(
        record.step_table().assign(method=method)
        for method, records in replicated.items()
        for record in records
    )
    paths = value(steps).groupby([steps["method"], steps["step"]], sort=False)
    table = paths.agg(["mean", "min", "max"]).rename(columns={"min": "low", "max": "high"})
    return table.reset_index()


def path_table(replicated: Mapping[str, Sequence[RunRecord]], column: str) -> pd.DataFrame:
    """Return the path of one of :data:`lib.runs.STEP_COLUMNS` from each method's runs: ``method``,
    ``step``, and over seeds ``mean``, ``low`` and ``high``."""
    return _over_seeds(replicated, lambda steps: steps[column])


def imbalance(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return how far the directions' variances differ, one row per seed and step.

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
    """Return the path of the weight of image → text, both weights scaled to the sum 2; the columns
    are those of :func:`path_table`."""
    return _over_seeds(
        replicated,
        lambda steps: 2 * (steps["weight_i2t"] / (steps["weight_i2t"] + steps["weight_t2i"])),
    )
