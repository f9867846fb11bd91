"""How far the two directions' signals differ, why, and under which conditions.

``variance × direction`` acts on nothing but the ratio of the mean row variance to the mean column
variance of a batch's similarities.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from lib.chapters.shared.figures import signed, with_interval
from lib.chapters.shared.traces import furthest_weight, imbalance
from lib.chapters.shared.verdicts import beyond_chance
from lib.chapters.signals.conditions import CONDITIONS, TENTH, Compared
from lib.models import matmul
from lib.runs import NoiseConfig, RunConfig, RunRecord
from lib.training import Lab


def under(config: RunConfig, condition: str) -> RunConfig:
    """Return a configuration under one of :data:`CONDITIONS`.

    The number of steps stays about the same: see :meth:`lib.runs.RunConfig.with_steps_like`.

    Raises:
        ValueError: The condition is unknown.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"{condition!r} is not a condition; there are {', '.join(CONDITIONS)}")
    changes = dict(CONDITIONS[condition])
    if "noise" in changes:
        changes["noise"] = NoiseConfig(**changes["noise"])
    if condition == TENTH:
        changes["train_images"] = max(2, config.train_images // 10)
    return config.model_copy(update=changes).with_steps_like(config)


def ratio_table(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the path of the ratio of the variances, minus 1, in percent: ``step``, and over seeds
    ``mean``, ``low`` and ``high``, from :func:`lib.chapters.shared.traces.imbalance`'s table."""
    percent = seen.assign(ratio=100 * np.expm1(seen["log_ratio"]))
    paths = percent.groupby("step")["ratio"].agg(["mean", "min", "max"])
    return paths.rename(columns={"min": "low", "max": "high"}).reset_index()


def condition_table(
    records: Mapping[Compared, Sequence[RunRecord]], differences: pd.DataFrame
) -> pd.DataFrame:
    """Return one row per condition: how far the variances differ, what the weights did, the effect.

    Args:
        records: The runs of ``"fixed"`` and ``"scheduled"`` under each condition.
        differences: Rows of :func:`lib.chapters.shared.verdicts.against_each`, scheduled against
            fixed, within each ``condition``.
    """
    rows = []
    for condition, found in differences.groupby("condition", sort=False):
        seen = imbalance(records[Compared(str(condition), "fixed")])["log_ratio"]
        moved = furthest_weight(records[Compared(str(condition), "scheduled")])
        rows.append(
            {
                "condition": condition,
                "variances differ, typical batch": f"{seen.abs().mean():.2%}",
                "weights moved by up to": f"{moved:.3f}",
                **{
                    f"{row.metric}, points": f"{with_interval(row.estimate, row.low, row.high)} "
                    f"{row.verdict}"
                    for row in found.itertuples()
                },
            }
        )
    return pd.DataFrame(rows)


def weight_at(log_ratio: float, gamma: float) -> float:
    """Return the weight of image → text that ``direction`` sets for a log ratio of the signals.

    2 u^γ / (u^γ + v^γ) = 2 / (1 + exp(−γ log(u / v))).

    >>> weight_at(0.0, 10.0), round(weight_at(0.02, 10.0), 3)
    (1.0, 1.1)
    """
    return 2 / (1 + math.exp(-gamma * log_ratio))


def gamma_for(log_ratio: float, shift: float = 0.1) -> float:
    """Return the γ at which a log ratio of the signals moves the weights from 1 by ``shift``.

    >>> round(weight_at(0.004, gamma_for(0.004)), 3)
    1.1
    """
    return 2 * math.atanh(shift) / abs(log_ratio) if log_ratio else math.inf


def hubness_table(lab: Lab, configs: Sequence[RunConfig], *, batches: int = 4) -> pd.DataFrame:
    """Measure both sides of the variance identity on batches of test pairs of trained models.

    Args:
        lab: Where to train, and where the table is kept.
        configs: The runs.
        batches: Batches of each run's size, from the test split in order, one caption per image.

    Returns:
        ``method``, ``seed``, ``batch``, ``signal`` (mean row variance − mean column variance),
        ``caption_hubs`` (variance of the column means), ``image_hubs`` (of the row means),
        ``total`` (variance of all similarities), float64.
    """

    def compute() -> pd.DataFrame:
        rows = []
        for config, encoder, data in lab.retrain(configs):
            owner = data.test.caption_owner
            count = len(data.test.image)
            order = torch.arange(len(owner) - 1, -1, -1, device=owner.device)
            # An image's first caption: the captions are written in reverse, and the last stays.
            caption = torch.full((count,), -1, device=owner.device)
            caption[owner[order]] = order
            captioned = torch.nonzero(caption >= 0).flatten()
            for batch, image in enumerate(torch.split(captioned, config.batch_size)[:batches]):
                embedded = encoder(data.test.image[image], data.test.text[caption[image]])
                similarity = matmul(embedded.image.double(), embedded.text.double().mT)
                rows.append(
                    {
                        "method": config.method,
                        "seed": config.seed,
                        "batch": batch,
                        "signal": float(
                            similarity.var(dim=1, correction=0).mean()
                            - similarity.var(dim=0, correction=0).mean()
                        ),
                        "caption_hubs": float(similarity.mean(dim=0).var(correction=0)),
                        "image_hubs": float(similarity.mean(dim=1).var(correction=0)),
                        "total": float(similarity.var(correction=0)),
                    }
                )
        return pd.DataFrame(rows)

    key = {"runs": [config.run_id for config in configs], "batches": batches}
    return lab.store.table("hubness", key, compute)


def conclusion(typical: float, response: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Return sentences on what the scheduler reads and whether it mattered, from the comparisons.

    Args:
        typical: Mean absolute log ratio of the two variances.
        response: Amplified schedulers against the fixed loss, with ``gamma``.
        differences: The scheduler against the fixed loss under each condition.
    """
    swept = [
        f"γ = {row.gamma:g} {row.verdict} {row.metric} ({signed(row.estimate)})"
        for row in beyond_chance(response).itertuples()
    ]
    found = [
        f"{row.condition}, {row.metric} {row.verdict} ({signed(row.estimate)})"
        for row in beyond_chance(differences).itertuples()
    ]
    alike = int((differences["verdict"] == "equivalent").sum())
    conditions = differences["condition"].nunique()
    return (
        f"The scheduler reads a difference in hubness, which is {typical:.2%} of the signal in a "
        "typical batch. Amplified far beyond what was tuned, it changes "
        + ("this: " + "; ".join(swept) if swept else "nothing that is more than chance")
        + f". Under {conditions} conditions, {alike} of {len(differences)} comparisons with the "
        "fixed loss are equivalent, and "
        + ("these are not chance: " + "; ".join(found) if found else "none is more than chance")
        + "."
    )
