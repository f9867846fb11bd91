"""One factor at a time: a setting is moved, all else stays, and the comparisons are made again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib.chapters.sensitivity.sizes import FIXED
from lib.chapters.shared.traces import furthest_weight, imbalance
from lib.chapters.shared.tuning import results_table, scheduled
from lib.chapters.shared.verdicts import PAPER_METHOD, against_each
from lib.chapters.signals import same_steps
from lib.runs import RunConfig, RunRecord

Changes = Mapping[str, Any]

FACTORS: Mapping[str, Mapping[str, Changes]] = {
    "batch size": {"512": {"batch_size": 512}},
    "temperature": {"0.05": {"temperature": 0.05}, "0.2": {"temperature": 0.2}},
    "embedding size": {"64": {"embedding_dim": 64}},
    "hidden layers": {
        "1": {"hidden_layers": 1},
        "1, image alone": {"hidden_layers": 1, "text_hidden_layers": 0},
        "1, text alone": {"text_hidden_layers": 1},
    },
    "dropout": {"0.5": {"dropout": 0.5}},
    "weight decay": {"1": {"weight_decay": 1.0}},
    "captions an image": {"1": {"captions_per_image": 1}},
    "towers": {
        "larger image tower": {"image_tower": "efficientnet-lite1"},
        "words alone": {"text_tower": "minilm@0"},
    },
    "γ": {"−10": {"gamma": -10.0}, "1": {"gamma": 1.0}},
    "smoothing β": {"0": {"beta": 0.0}, "0.99": {"beta": 0.99}},
    "warm-up": {"40 steps": {"warmup": 40}},
}
"""Factor to its levels, beside the default, and what each changes: in the run's configuration, or
in the paper's scheduler (γ, β and the warm-up, which the other methods do not have)."""

OF_THE_SCHEDULER = ("γ", "smoothing β", "warm-up")
DEFAULT = ("default", "as tuned")


@dataclass(frozen=True)
class Level:
    """A value of a factor, and the configurations that are compared there by method."""

    factor: str
    value: str
    configs: Mapping[str, RunConfig]

    def named(self, method: str) -> str:
        """Return what a method is called at this level."""
        return f"{method}, {self.factor}: {self.value}"


def levels(chosen: Mapping[str, RunConfig], factors: Sequence[str], gamma: float) -> list[Level]:
    """Return the default and every level of the factors.

    Nothing is tuned again: at each level all methods get the same change. A method that does not
    have what a level changes is left out there, but for the fixed loss.

    Args:
        chosen: Method to its tuned configuration; the fixed loss and the paper's scheduler among
            them.
        factors: Of :data:`FACTORS`.
        gamma: Exponent of the paper's scheduler, large enough to give it a say.

    Raises:
        ValueError: There is no factor of that name.
    """
    unknown = [factor for factor in factors if factor not in FACTORS]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such factor; there are {', '.join(FACTORS)}")
    strong = _rescheduled(chosen[PAPER_METHOD], {"gamma": gamma})
    methods = {**chosen, PAPER_METHOD: strong}
    found = [Level(*DEFAULT, methods)]
    for factor in factors:
        for value, changes in FACTORS[factor].items():
            if factor in OF_THE_SCHEDULER:
                changed = {
                    FIXED: methods[FIXED],
                    PAPER_METHOD: _rescheduled(strong, changes),
                }
            else:
                changed = {
                    method: same_steps(config, config.model_copy(update=dict(changes)))
                    for method, config in methods.items()
                    if not ("temperature" in changes and _sets_temperature(config))
                }
            found.append(Level(factor, value, changed))
    return found


def compare_levels(
    found: Sequence[Level], replicated: Mapping[str, Sequence[RunRecord]], margin: float
) -> pd.DataFrame:
    """Compare each level's methods with its fixed loss, one Holm family.

    Args:
        found: What :func:`levels` returns.
        replicated: :meth:`Level.named` of every method and level to its runs.
        margin: Points within which a difference is none.

    Returns:
        Columns as :func:`lib.chapters.shared.verdicts.against_each` returns them, ``method`` being
        the plain name, with ``factor``, ``value`` and ``level`` (both in one).
    """
    cells = [(level, method) for level in found for method in level.configs if method != FIXED]
    pairs = [(level.named(method), level.named(FIXED)) for level, method in cells]
    table = against_each(results_table(replicated), pairs, margin)
    names = pd.DataFrame(
        [
            {
                "run": level.named(method),
                "plain": method,
                "factor": level.factor,
                "value": level.value,
                "level": f"{level.factor}: {level.value}",
            }
            for level, method in cells
        ]
    )
    joined = table.merge(names, left_on="method", right_on="run", validate="many_to_one")
    return joined.assign(method=joined["plain"], baseline=FIXED).drop(columns=["run", "plain"])


def level_table(
    found: Sequence[Level], replicated: Mapping[str, Sequence[RunRecord]]
) -> pd.DataFrame:
    """Return a row a level: the fixed loss's recalls, how far the two variances differ in a typical
    batch, and how far the paper's scheduler moved its weights."""
    rows = []
    for level in found:
        fixed = replicated[level.named(FIXED)]
        weighted = replicated[level.named(PAPER_METHOD)]
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
    return config.schedule is not None and scheduled(config).actuator == "sharpness"


def verdict(sizes: pd.DataFrame, compared: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say what the size and the factors change, in sentences made from the comparisons.

    Args:
        sizes: Rows of :func:`lib.chapters.sensitivity.sizes.against_fixed`.
        compared: What :func:`compare_levels` returns.
        table: What :func:`level_table` returns.
    """
    sentences = []
    for method, rows in sizes.groupby("method", sort=False):
        sentences.append(f"By size, `{method}` against the fixed loss: {_counts(rows)}.")
    for method, rows in compared.groupby("method", sort=False):
        sentences.append(f"Factor by factor, `{method}`: {_counts(rows)}.")
    odd = compared[
        (compared["method"] == PAPER_METHOD) & compared["verdict"].isin(["improves", "worsens"])
    ]
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
