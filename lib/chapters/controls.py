"""Controls: runs with a scheduler's settings that do not depend on the run's own signal.

A scheduler may gain by adapting to its model, by the path that it sets for any model, or by that
path's mean. Runs with the constant mean, with another seed's path and with the scheduler separate
these causes.
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from lib.chapters.shared import charts
from lib.chapters.shared.figures import signed
from lib.chapters.shared.methods import scheduled
from lib.chapters.shared.verdicts import against_each
from lib.runs import ConstantConfig, ReplayConfig, RunConfig

MEAN, OTHER, RANDOM, FLIPPED = "own mean", "other seed's path", "random path", "sign flipped"

WHOLE = "whole gain"


def constant_weights(fixed: RunConfig, weights: Sequence[float]) -> dict[str, RunConfig]:
    """Return the fixed loss with constant weights of the directions, by name."""
    return {
        f"w = {weight:g}": fixed.model_copy(update={"schedule": ConstantConfig(weight_i2t=weight)})
        for weight in weights
    }


def control_name(scheduler: str, control: str) -> str:
    """Return the name of a scheduler's control among methods."""
    return f"{scheduler}: {control}"


def controls(adaptive: RunConfig, name: str) -> dict[str, RunConfig]:
    """Return the controls of a scheduler by the names that :func:`control_name` gives them.

    Args:
        adaptive: A configuration whose schedule is a signal driving an actuator.
        name: The scheduler's name, with which its controls' names begin.

    Raises:
        ValueError: The configuration has no scheduler.
    """
    schedule = scheduled(adaptive)
    found = {
        MEAN: ReplayConfig(of=schedule, whose="own", form="mean"),
        OTHER: ReplayConfig(of=schedule, whose="other", form="path"),
    }
    played = {
        label: adaptive.model_copy(update={"schedule": replay}) for label, replay in found.items()
    }
    if schedule.actuator == "direction":
        replay = ReplayConfig(of=schedule, whose="own", form="surrogate")
        turned = schedule.model_copy(update={"gamma": -schedule.gamma})
        played[RANDOM] = adaptive.model_copy(update={"schedule": replay})
        played[FLIPPED] = adaptive.model_copy(update={"schedule": turned})
    return {control_name(name, control): config for control, config in played.items()}


def attribution(runs: pd.DataFrame, methods: Sequence[str], margin: float) -> pd.DataFrame:
    """Split the gain of each scheduler over the fixed loss into the parts that its controls show.

    From the fixed loss to the scheduler's mean, to another seed's path, to the scheduler itself,
    each step adds one thing; the three differences sum to the whole gain.

    Args:
        runs: One row per run; ``method`` holds ``"fixed"``, each scheduler and its controls.
        methods: The schedulers.
        margin: Points within which a difference is none.

    Returns:
        Rows as :func:`lib.chapters.shared.verdicts.against` gives them, one family, with
        ``scheduler`` and ``part``: ``"its mean"``, ``"its path"``, ``"adapting"`` or ``"whole
        gain"``.
    """
    parts = []
    for method in methods:
        mean, other = control_name(method, MEAN), control_name(method, OTHER)
        parts += [
            (method, "its mean", mean, "fixed"),
            (method, "its path", other, mean),
            (method, "adapting", method, other),
            (method, WHOLE, method, "fixed"),
        ]
    table = against_each(runs, [(one, other) for _, _, one, other in parts], margin)
    named = pd.DataFrame(
        [(scheduler, part, one, other) for scheduler, part, one, other in parts],
        columns=["scheduler", "part", "method", "baseline"],
    )
    return named.merge(table, on=["method", "baseline"], sort=False)


def conclusion(
    constant: pd.DataFrame, weights: pd.DataFrame, parts: pd.DataFrame, decays: pd.DataFrame
) -> str:
    """Return sentences on what the gains are due to, from the comparisons.

    Args:
        constant: Constant weights against the fixed loss.
        weights: The amplified scheduler and its controls against the fixed loss.
        parts: What :func:`attribution` returns.
        decays: The fixed loss with a decaying learning rate against the one without, and schedulers
            with the decay against the fixed loss with the decay.
    """
    sentences = [
        _helpful(constant, "No constant weighting is better than equal weights"),
        _helpful(weights, "Neither the amplified scheduler nor any of its controls is better"),
    ]
    for scheduler, rows in parts.groupby("scheduler", sort=False):
        whole = rows[(rows["part"] == WHOLE) & (rows["verdict"] == "improves")]
        if whole.empty:
            sentences.append(f"`{scheduler}` shows no gain to explain.")
            continue
        for gain in whole.itertuples():
            added = rows[(rows["metric"] == gain.metric) & (rows["part"] != WHOLE)]
            proven = added[added["verdict"] == "improves"]["part"].tolist()
            split = ", ".join(f"{row.part} {signed(row.estimate)}" for row in added.itertuples())
            if proven:
                cause = f"due to {' and '.join(proven)}"
            else:
                cause = "more than any single part of it can be shown to be"
            sentences.append(
                f"The gain of `{scheduler}` in {gain.metric}, {signed(gain.estimate)} points, is "
                f"{cause} ({split})."
            )
    adapting = parts[(parts["part"] == "adapting") & (parts["verdict"] == "improves")]
    if adapting.empty:
        sentences.append("No gain in this chapter is shown to come from adapting.")
    gained = decays[decays["baseline"] == "fixed"]
    changes = ", ".join(
        f"{signed(row.estimate)} in {row.metric} ({row.verdict})" for row in gained.itertuples()
    )
    with_decay = _helpful(
        decays[decays["baseline"] != "fixed"],
        "With that decay no scheduled temperature is better than the fixed one",
        "With that decay, still better than the fixed loss",
    )
    sentences.append(f"A decaying learning rate alone changes the fixed loss by {changes}.")
    return " ".join([*sentences, with_decay])


def _helpful(
    table: pd.DataFrame, nothing: str, something: str = "Better than the fixed loss"
) -> str:
    better = table[table["verdict"] == "improves"]
    if better.empty:
        return f"{nothing}."
    found = ", ".join(
        f"{row.method} ({row.metric} {signed(row.estimate)})" for row in better.itertuples()
    )
    return f"{something}: {found}."


def attribution_chart(table: pd.DataFrame, margin: float) -> alt.FacetChart:
    """Draw what each part adds to a scheduler's gain: one row per scheduler, one column per metric.

    Args:
        table: Rows of :func:`lib.chapters.controls.attribution`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    layers = charts.difference_layers(
        table, margin, "part", "points", named=("scheduler", "method", "baseline")
    )
    row = alt.Row("scheduler:N").title(None).sort(list(dict.fromkeys(table["scheduler"])))
    return charts.difference_panels(
        layers,
        charts.difference_title(
            "Where the gain of a scheduled temperature comes from", f"±{margin:g} points"
        ),
        (215, alt.Step(22)),
        column=alt.Column("metric:N").title(None),
        row=row.header(labelAngle=0, labelAlign="left", labelOrient="top"),
    )
