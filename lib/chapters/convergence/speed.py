"""Speed of convergence: when a run's validation curve reaches what the fixed loss reaches.

The target is paired. At each seed it is a share of the best validation rSum of the baseline's own
run at that seed, so that a lucky subset raises the bar for every method alike.

A run that does not reach its target within the epochs trained is *censored*: it needs longer.
Shares of runs are Kaplan and Meier's (1958). Methods are compared by the restricted mean time to
target, the mean of min(T, epochs trained) (Royston and Parmar, BMC Medical Research Methodology,
2013). It counts a censored run as needing all epochs, which favours the method with more of them,
so their number stands beside the difference. High targets favour the baseline, which reaches its
own best by definition, while an equal method with other noise may not.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, stats

from lib.chapters.shared.findings import Finding
from lib.chapters.shared.verdicts import FAMILY, PAPER_METHOD, answer_claim, detectable
from lib.runs import RunConfig, RunRecord
from lib.statistics import compare_methods, comparison_table, paired_comparison

SHARES = (0.90, 0.95, 0.99)
"""Targets, as shares of the baseline's best validation rSum."""
PRIMARY_SHARES = (0.95, 0.99)
"""The targets on which the claim is judged; 90 % is passed while every curve is at its steepest."""
OWN_BEST = "epoch of its own best"
"""The paper's measure of speed. A flat maximum makes it noisy, so it is not a primary measure."""


def epochs_to(curve: ArrayLike, level: float) -> float:
    """Return when a curve first reaches a level, in epochs; infinity if it never does.

    Between evaluations the curve is taken as straight, since targets lie only a few epochs apart;
    :data:`numpy.ceil` of the result is the first evaluation at or above the level. A run that is
    there at the first evaluation counts as 1.

    Args:
        curve: (epochs,) the value after each epoch.
        level: In the curve's unit.

    >>> epochs_to([10.0, 30.0, 40.0], 35.0), epochs_to([10.0, 30.0], 5.0)
    (2.5, 1.0)
    """
    values = np.asarray(curve, dtype=np.float64)
    there = np.flatnonzero(values >= level)
    if not there.size or there[0] == 0:
        return 1.0 if there.size else float("inf")
    first = int(there[0])
    below, above = values[first - 1], values[first]
    return float(first + (level - below) / (above - below))


def mean_height(curve: ArrayLike) -> float:
    """Return the mean height of a curve from the first evaluation to the last, by trapezoids.

    >>> mean_height([10.0, 30.0, 40.0])
    27.5
    """
    values = np.asarray(curve, dtype=np.float64)
    return float(integrate.trapezoid(values)) / (len(values) - 1) if len(values) > 1 else values[0]


def speed_table(
    replicated: Mapping[str, Sequence[RunRecord]], baseline: str = "fixed"
) -> pd.DataFrame:
    """Return when each run reached each target.

    Args:
        replicated: Method to its records, on the same seeds.
        baseline: The method whose best validation rSum, seed by seed, sets the targets.

    Returns:
        One row per run and target: ``method``, ``seed``, ``share`` (of :data:`SHARES`), ``epochs``
        (interpolated; the horizon if censored), ``whole`` (the same at the first evaluation
        there), ``steps``, ``reached``, ``horizon`` (epochs trained), ``best_epoch``, ``area``
        (:func:`mean_height` of validation rSum), ``turns`` and ``signal`` (:func:`what_is_set`).

    Raises:
        ValueError: The baseline is missing, seeds don't match, or runs differ in length.

    >>> from lib.runs import EPOCH_COLUMNS, STEP_COLUMNS
    >>> def run(*rsum):
    ...     epochs = np.zeros((len(rsum), len(EPOCH_COLUMNS)))
    ...     epochs[:, -1] = rsum
    ...     steps = np.zeros((7 * len(rsum), len(STEP_COLUMNS)), dtype=np.float32)
    ...     return RunRecord(RunConfig(), "", 1, {}, epochs, steps, False, 0.0, {})
    >>> table = speed_table({"fixed": [run(80.0, 100.0)], "slow": [run(60.0, 90.0)]})
    >>> table[["epochs", "reached"]].to_numpy().tolist()[::3]
    [[1.5, True], [2.0, True]]
    """
    if baseline not in replicated:
        raise ValueError(f"the baseline {baseline!r} is not among {list(replicated)}")
    best = {record.config.seed: _rsum(record).max() for record in replicated[baseline]}
    horizons = {len(record.epochs) for records in replicated.values() for record in records}
    if len(horizons) > 1:
        raise ValueError(
            f"the runs are {sorted(horizons)} epochs long; compare the speed of runs trained for "
            "equally many, or the shorter ones count as censored too early"
        )
    rows = []
    for method, records in replicated.items():
        if {record.config.seed for record in records} != set(best):
            raise ValueError(f"{method!r} and {baseline!r} were run on different seeds")
        for record in records:
            curve, horizon = _rsum(record), len(record.epochs)
            for share in SHARES:
                time = epochs_to(curve, share * best[record.config.seed])
                epochs = min(time, float(horizon))
                rows.append(
                    {
                        "method": method,
                        "seed": record.config.seed,
                        "share": share,
                        "epochs": epochs,
                        "whole": float(np.ceil(epochs)),
                        "steps": epochs * len(record.steps) / horizon,
                        "reached": bool(np.isfinite(time)),
                        "horizon": horizon,
                        "best_epoch": record.best_epoch,
                        "area": mean_height(curve),
                        **what_is_set(record.config),
                    }
                )
    return pd.DataFrame(rows)


def share_reached(
    epochs: ArrayLike, reached: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Kaplan and Meier's share of runs that have reached their target, at each time.

    Args:
        epochs: (runs,) the time to target, or the horizon if the run is censored.
        reached: (runs,) whether it was reached.

    Returns:
        The times at which it may change, in order, and the share from then on.

    >>> times, share = share_reached([2.0, 3.0, 15.0], [True, True, False])
    >>> times.tolist(), share.round(3).tolist()
    ([2.0, 3.0, 15.0], [0.333, 0.667, 0.667])
    """
    censored = ~np.asarray(reached, dtype=bool)
    cdf = stats.ecdf(stats.CensoredData.right_censored(np.asarray(epochs), censored)).cdf
    return np.asarray(cdf.quantiles), np.asarray(cdf.probabilities)


def reached_table(speeds: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the share of runs that reached a target by an epoch, as steps from 0 to the horizon.

    Args:
        speeds: Of :func:`speed_table`.
        share: The target.

    Returns:
        ``method``, ``epoch``, ``reached`` (percent of runs from this epoch on), ``turns`` and
        ``signal``.
    """
    parts = []
    for method, rows in speeds[speeds["share"] == share].groupby("method", sort=False):
        times, shares = share_reached(rows["epochs"], rows["reached"])
        parts.append(
            pd.DataFrame(
                {
                    "method": method,
                    "epoch": [0.0, *times, float(rows["horizon"].iloc[0])],
                    "reached": [0.0, *100 * shares, 100 * shares[-1]],
                    "turns": rows["turns"].iloc[0],
                    "signal": rows["signal"].iloc[0],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def curve_table(replicated: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return every run's validation curve: ``method``, ``seed``, ``epoch``, ``rsum``, ``turns`` and
    ``signal`` (:func:`what_is_set`)."""
    return pd.concat(
        [
            record.epoch_table()[["epoch", "rsum"]].assign(
                method=method, seed=record.config.seed, **what_is_set(record.config)
            )
            for method, records in replicated.items()
            for record in records
        ],
        ignore_index=True,
    )


def what_is_set(config: RunConfig) -> dict[str, str]:
    """Return ``turns``: the actuator, or the method if it has none, and the ``signal`` or "none".

    >>> what_is_set(RunConfig())
    {'turns': 'fixed', 'signal': 'none'}
    """
    scheduler = config.scheduler
    if scheduler is None:
        return {"turns": config.method, "signal": "none"}
    return {"turns": scheduler.actuator, "signal": scheduler.signal}


def speed_summary(speeds: pd.DataFrame, baseline: str = "fixed") -> pd.DataFrame:
    """Return one row per method: median times, censored runs, best epoch, the area's difference.

    Args:
        speeds: Of :func:`speed_table`.
        baseline: What the area is compared with.

    Returns:
        ``method``; for each target ``epochs_90``, ``steps_90``, ``censored_90`` and so on, the
        median over seeds being infinite if half of the runs or more are censored; ``runs``;
        ``best_epoch`` (median); ``area``, ``area_low``, ``area_high``: the paired difference in
        mean validation rSum and its 95 % interval, zero for the baseline.
    """
    runs = speeds[speeds["share"] == SHARES[0]]
    areas = {method: rows.set_index("seed")["area"] for method, rows in runs.groupby("method")}
    summary = []
    for method, rows in speeds.groupby("method", sort=False):
        row: dict[str, object] = {"method": method}
        for share, at in rows.groupby("share"):
            name = f"{100 * float(share):g}"
            row[f"epochs_{name}"] = np.median(at["epochs"].where(at["reached"], np.inf))
            row[f"steps_{name}"] = np.median(at["steps"].where(at["reached"], np.inf))
            row[f"censored_{name}"] = int((~at["reached"]).sum())
        area = paired_comparison(areas[method], areas[baseline])
        row |= {
            "runs": len(areas[method]),
            "best_epoch": float(rows["best_epoch"].median()),
            "area": area.estimate,
            "area_low": area.low,
            "area_high": area.high,
        }
        summary.append(row)
    return pd.DataFrame(summary)


def target_name(share: float) -> str:
    """Return how a figure names the time to a target.

    >>> target_name(0.95)
    'epochs to 95 %'
    """
    return f"epochs to {100 * share:g} %"


def compare_speed(
    speeds: pd.DataFrame,
    margin: float,
    *,
    baseline: str = "fixed",
    claimed: str = PAPER_METHOD,
    column: str = "epochs",
) -> pd.DataFrame:
    """Compare every method's restricted mean time to target with the baseline's.

    At all targets, and at the epoch of each run's own best.

    Args:
        speeds: Of :func:`speed_table`.
        margin: Epochs within which a difference is none.
        baseline: What is compared with.
        claimed: The method that the claim is about.
        column: ``"epochs"``, or ``"whole"`` for times at evaluations alone.

    Returns:
        Columns as in :func:`lib.statistics.comparison_table`, in epochs, a negative difference
        being faster, and ``primary``: whether the claim, ``claimed`` at :data:`PRIMARY_SHARES`, is
        about it.

    Raises:
        ValueError: ``baseline`` or ``claimed`` is not among the methods, or the seeds don't match.
    """
    order = speeds["method"].unique().tolist()
    if claimed not in order:
        raise ValueError(f"the claim is about {claimed!r}, which is not among {order}; run it too")
    times = speeds.pivot(index=["method", "seed"], columns="share", values=column)
    times.columns = [target_name(share) for share in times.columns]
    own = speeds.groupby(["method", "seed"])["best_epoch"].first().rename(OWN_BEST)
    table = times.join(own).reset_index()
    table = table.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    metrics = [*times.columns, OWN_BEST]
    primary = [target_name(share) for share in PRIMARY_SHARES]
    families = [
        comparison_table(
            compare_methods(
                table, baseline, [name], margin=margin, family=FAMILY, lower_is_better=[name]
            )
        )
        for name in metrics
    ]
    both = pd.concat(families, ignore_index=True)
    both["primary"] = (both["method"] == claimed) & both["metric"].isin(primary)
    return both.sort_values(
        ["method", "metric"],
        key=lambda names: names.map((order if names.name == "method" else metrics).index),
    ).reset_index(drop=True)


def speed_finding(
    notebook: str,
    speeds: pd.DataFrame,
    compared: pd.DataFrame,
    *,
    corpus: str,
    train_images: int,
    margin: float,
) -> Finding:
    """Answer claim 5, that the paper's scheduler converges faster.

    Args:
        notebook, corpus, train_images: As for :func:`lib.chapters.shared.verdicts.judge`.
        speeds: Of :func:`speed_table`.
        compared, margin: Of :func:`compare_speed`; the primary rows are the answer.
    """
    table = compared[compared["primary"]]
    method, baseline = table["method"].iloc[0], table["baseline"].iloc[0]
    missed = speeds[(speeds["share"] == PRIMARY_SHARES[-1]) & ~speeds["reached"]]
    counts = missed["method"].value_counts()
    targets = " and ".join(f"{100 * share:g} %" for share in PRIMARY_SHARES)
    remarks = (
        f"Differences within ±{margin:g} epochs count as none. Runs that never reached "
        f"{100 * PRIMARY_SHARES[-1]:g} % in {speeds['horizon'].iloc[0]} epochs: "
        f"{counts.get(method, 0)} of {method}, {counts.get(baseline, 0)} of {baseline}."
    )
    return answer_claim(
        5,
        notebook,
        table.assign(unit="epochs"),
        remarks,
        detectable(table, "epochs"),
        corpus=corpus,
        train_images=train_images,
        measure=f"epochs until validation rSum is at {targets} of the best of {baseline}, ",
    )


def _rsum(record: RunRecord) -> NDArray[np.float64]:
    return record.epochs[:, -1]
