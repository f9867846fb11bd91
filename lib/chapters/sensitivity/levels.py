"""The comparisons again with one setting changed at a time."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lib.chapters.sensitivity.factors import DEFAULT, FACTORS, OF_THE_SCHEDULER, Changes, Level
from lib.chapters.sensitivity.sizes import FIXED
from lib.chapters.shared.methods import scheduled
from lib.chapters.shared.traces import furthest_weight, imbalance
from lib.chapters.shared.tuning import results_table
from lib.chapters.shared.verdicts import PAPER_METHOD, against, beyond_chance
from lib.runs import RunConfig, RunRecord


def levels(
    chosen: Mapping[str, RunConfig], factors: Sequence[str], gamma: float
) -> dict[Level, RunConfig]:
    """Return every method's configuration at the default and at every level of the factors.

    Nothing is tuned again: at each level all methods get the same change. A method without the
    setting that a level changes is left out there, except the fixed loss.

    Args:
        chosen: Method to its tuned configuration, with the fixed loss and the paper's scheduler.
        factors: Of :data:`FACTORS`.
        gamma: Exponent of the paper's scheduler, large enough to move its weights visibly.

    Raises:
        ValueError: A factor is unknown.
    """
    unknown = [factor for factor in factors if factor not in FACTORS]
    if unknown:
        raise ValueError(f"unknown factor {', '.join(unknown)}; there are {', '.join(FACTORS)}")
    strong = _rescheduled(chosen[PAPER_METHOD], {"gamma": gamma})
    methods = {**chosen, PAPER_METHOD: strong}
    found = {Level(*DEFAULT, method): config for method, config in methods.items()}
    for factor in factors:
        for value, changes in FACTORS[factor].items():
            if factor in OF_THE_SCHEDULER:
                changed = {FIXED: methods[FIXED], PAPER_METHOD: _rescheduled(strong, changes)}
            else:
                changed = {
                    method: config.model_copy(update=dict(changes)).with_steps_like(config)
                    for method, config in methods.items()
                    if not ("temperature" in changes and _sets_temperature(config))
                }
            found |= {Level(factor, value, method): config for method, config in changed.items()}
    return found


def compare_levels(replicated: Mapping[Level, Sequence[RunRecord]], margin: float) -> pd.DataFrame:
    """Compare each level's methods with its fixed loss, one family per factor.

    Args:
        replicated: What :func:`levels` returns, to its runs.
        margin: Points within which a difference is none.

    Returns:
        Columns as :func:`lib.chapters.shared.verdicts.against` returns them, with ``factor``,
        ``value`` and ``level`` (both in one).
    """
    runs = results_table(replicated)
    runs["level"] = runs["factor"] + ": " + runs["value"]
    parts = runs[["factor", "value", "level"]].drop_duplicates()
    families = [
        against(of_factor, FIXED, margin, within="level")
        for _, of_factor in runs.groupby("factor", sort=False)
    ]
    return pd.concat(families, ignore_index=True).merge(parts, on="level")


def level_table(replicated: Mapping[Level, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one row per level: the fixed loss's recalls, how far the two variances differ in a
    typical batch, and how far the paper's scheduler moved its weights."""
    rows = []
    for level, fixed in replicated.items():
        if level.method != FIXED:
            continue
        weighted = replicated[level._replace(method=PAPER_METHOD)]
        mean = pd.DataFrame([dict(record.test) for record in fixed]).mean()
        rows.append(
            {
                "factor": level.factor,
                "value": level.value,
                "i2t R@1": mean["i2t_r1"],
                "t2i R@1": mean["t2i_r1"],
                "rSum": mean["rsum"],
                "variances differ": f"{imbalance(fixed)['log_ratio'].abs().mean():.2%}",
                "weights moved by up to": f"{furthest_weight(weighted):.3f}",
            }
        )
    return pd.DataFrame(rows)


def _rescheduled(config: RunConfig, changes: Changes) -> RunConfig:
    schedule = scheduled(config).model_copy(update=dict(changes))
    return config.model_copy(update={"schedule": schedule})


def _sets_temperature(config: RunConfig) -> bool:
    return config.scheduler is not None and config.scheduler.actuator == "sharpness"


def conclusion(sizes: pd.DataFrame, compared: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return sentences on what the size and the factors change, from the tables of
    :func:`lib.chapters.sensitivity.sizes.against_fixed`, :func:`compare_levels` and
    :func:`level_table`."""
    sentences = []
    for method, rows in sizes.groupby("method", sort=False):
        sentences.append(f"By size, `{method}` against the fixed loss: {_counts(rows)}.")
    for method, rows in compared.groupby("method", sort=False):
        sentences.append(f"Factor by factor, `{method}`: {_counts(rows)}.")
    odd = beyond_chance(compared[compared["method"] == PAPER_METHOD])
    if odd.empty:
        sentences.append("No setting was found in which the paper's scheduler does something.")
    else:
        named = ", ".join(dict.fromkeys(odd["level"] + " (" + odd["verdict"] + ")"))
        sentences.append(f"The paper's scheduler does something under: {named}.")
    worst = table.loc[table["rSum"].idxmin()]
    best = table.loc[table["rSum"].idxmax()]
    sentences.append(
        f"The settings themselves matter far more: the fixed loss's rSum goes from "
        f"{worst['rSum']:.1f} ({worst['factor']}: {worst['value']}) to {best['rSum']:.1f} "
        f"({best['factor']}: {best['value']})."
    )
    return " ".join(sentences)


def _counts(rows: pd.DataFrame) -> str:
    counted = rows["verdict"].value_counts()
    order = [v for v in ("improves", "equivalent", "undecided", "worsens") if v in counted]
    return ", ".join(f"{counted[v]} of {len(rows)} {v}" for v in order)
