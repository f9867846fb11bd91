"""The chapter on towers that are trained end to end: its settings, comparisons and verdict."""

from collections.abc import Mapping, Sequence
from typing import Final

import altair as alt
import pandas as pd

from lib.chapters.parameters import EndToEndParameters
from lib.chapters.shared.figures import leaderboard, with_interval
from lib.chapters.shared.methods import temperature_grid
from lib.chapters.shared.traces import furthest_weight, imbalance
from lib.chapters.shared.tuning import Tuning, tune
from lib.chapters.shared.verdicts import FAMILY, PAPER_METHOD, against_each, beyond_chance
from lib.runs import RunConfig, RunRecord, ScheduleConfig, TowersConfig
from lib.schedulers import SIGNALS
from lib.statistics import minimum_detectable_effect
from lib.training import Lab

FIXED = "fixed"
FROZEN: Final = "frozen"
BLOCKS: Final = "last blocks"
SCRATCH: Final = "from scratch"


def base_config(parameters: EndToEndParameters, setting: str) -> RunConfig:
    """Return what all runs of a setting share.

    Args:
        parameters: The notebook's.
        setting: ``"frozen"``, ``"last blocks"`` or ``"from scratch"``.
    """
    heads = {"train_images": parameters.train_images, "learning_rate": parameters.learning_rate}
    if setting == SCRATCH:
        return RunConfig.of(
            parameters,
            image_tower=f"resnet18@{parameters.scratch_pixels}",
            text_tower=parameters.scratch_text_tower,
            train_images=parameters.scratch_images,
            epochs=parameters.scratch_epochs,
            learning_rate=parameters.scratch_learning_rate,
            towers=TowersConfig(
                trained=SCRATCH,
                augmentation=parameters.augmentation,
                least_count=parameters.least_count,
            ),
        )
    if setting == BLOCKS:
        trained = TowersConfig(trained=BLOCKS, learning_rate=parameters.block_learning_rate)
        return RunConfig.of(parameters, towers=trained, **heads)
    return RunConfig.of(parameters, epochs=parameters.frozen_epochs, **heads)


def tune_setting(lab: Lab, base: RunConfig, parameters: EndToEndParameters) -> dict[str, Tuning]:
    """Tune the fixed loss over its temperature, then each scheduler over its exponent at the
    temperature that the fixed loss chose, with equally many candidates.

    Args:
        lab: Where to train.
        base: Of :func:`base_config`.
        parameters: The notebook's.

    Returns:
        ``"fixed"`` and ``"scheduled"`` to their tuning.

    Raises:
        ValueError: The grids differ in length.
    """
    if len(parameters.temperatures) != len(parameters.gammas):
        raise ValueError(
            f"temperatures has {len(parameters.temperatures)} values and gammas "
            f"{len(parameters.gammas)}; give equally many, for an equal budget"
        )
    seeds = range(parameters.tuning_seeds)
    grid = temperature_grid(base, parameters.temperatures, [base.learning_rate])
    fixed = tune(lab, {FIXED: grid}, seeds)
    scheduled = {
        f"{signal} × direction": [
            fixed.chosen[FIXED].model_copy(
                update={
                    "schedule": ScheduleConfig(
                        signal=signal,
                        actuator="direction",
                        gamma=gamma,
                        beta=parameters.beta,
                        warmup=parameters.warmup,
                    )
                }
            )
            for gamma in parameters.gammas
        ]
        for signal in SIGNALS
        if signal in parameters.signals
    }
    return {FIXED: fixed, "scheduled": tune(lab, scheduled, seeds)}


def chosen(tunings: Mapping[str, Tuning]) -> dict[str, RunConfig]:
    """Return each method's configuration, from :func:`tune_setting`."""
    return {name: config for one in tunings.values() for name, config in one.chosen.items()}


def tuning_table(settings: Mapping[str, Mapping[str, Tuning]]) -> pd.DataFrame:
    """Return every candidate of every setting: ``towers`` and the columns of a tuning's table."""
    return pd.concat(
        [
            one.table.assign(towers=setting)
            for setting, tunings in settings.items()
            for one in tunings.values()
        ],
        ignore_index=True,
    )


def results(settings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the leaderboards of several settings' runs as one table, ``towers`` first."""
    boards = [leaderboard(runs).assign(towers=setting) for setting, runs in settings.items()]
    board = pd.concat(boards, ignore_index=True)
    return board[["towers", *board.columns.drop("towers")]]


def compare(settings: Mapping[str, pd.DataFrame], margin: float) -> pd.DataFrame:
    """Compare every method with the fixed loss, and the paper's method with its rivals, in each
    setting, all as one family.

    Args:
        settings: Setting to rows of :func:`lib.chapters.shared.tuning.results_table`.
        margin: Points within which a difference is none.

    Returns:
        Columns of :func:`lib.chapters.shared.verdicts.against`, and ``towers``.
    """
    runs = pd.concat([table.assign(towers=name) for name, table in settings.items()])
    methods = [method for method in runs["method"].unique() if method != FIXED]
    pairs = [(method, FIXED) for method in methods]
    if PAPER_METHOD in methods:
        pairs += [(PAPER_METHOD, rival) for rival in methods if rival != PAPER_METHOD]
    return against_each(runs, pairs, margin, within="towers")


def labelled(compared: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with the towers in the method's name, for a chart of several settings."""
    return compared.assign(method=compared["towers"] + ": " + compared["method"])


def signal_table(settings: Mapping[str, Mapping[str, Sequence[RunRecord]]]) -> pd.DataFrame:
    """Return how far the directions' variances differ and how far schedulers moved the weights.

    Args:
        settings: Setting to method to its runs.

    Returns:
        ``towers``, ``method``, ``gamma``, ``differ`` (mean absolute log ratio of the two variances
        over steps and seeds), ``furthest`` (the largest distance of a weight from 1).
    """
    rows = []
    for setting, methods in settings.items():
        for method, records in methods.items():
            schedule = records[0].config.schedule
            gamma = schedule.gamma if isinstance(schedule, ScheduleConfig) else None
            differ = float(imbalance(records)["log_ratio"].abs().mean())
            rows.append((setting, method, gamma, differ, furthest_weight(records)))
    return pd.DataFrame(rows, columns=["towers", "method", "gamma", "differ", "furthest"])


def ratio_by_progress(settings: Mapping[str, Sequence[RunRecord]], bins: int = 20) -> pd.DataFrame:
    """Return how far the variances differ through training, for settings of different lengths.

    Args:
        settings: Setting to runs of the fixed loss.
        bins: The number of parts of a run over whose steps the differences are averaged.

    Returns:
        ``towers``, ``progress`` (the middle of each part, percent of the run's steps), ``differ``
        (mean absolute difference of the row and column variance, percent).
    """
    tables = []
    for setting, records in settings.items():
        seen = imbalance(records)
        share = (seen["step"] - 0.5) / seen["step"].max()
        middle = 100 * ((share * bins).astype(int) + 0.5) / bins
        differ = 100 * seen["log_ratio"].abs()
        table = differ.groupby(middle).mean().rename_axis("progress").rename("differ").reset_index()
        tables.append(table.assign(towers=setting))
    return pd.concat(tables, ignore_index=True)


def power(compared: pd.DataFrame, gains: Mapping[str, float]) -> pd.DataFrame:
    """Return the true difference from the fixed loss that these seeds find with probability 0.8,
    for each setting and metric, the largest over the methods.

    Args:
        compared: Of :func:`compare`.
        gains: Metric to the gain that the paper reports, in points.

    Returns:
        ``towers``, ``metric``, ``seeds``, ``the paper's gain``, ``found alone`` and ``found in a
        family``, at the level of the verdicts.
    """
    rows = []
    fixed = compared[compared["baseline"] == FIXED]
    for (setting, metric), group in fixed.groupby(["towers", "metric"], sort=False):
        deviation, seeds = float(group["deviation"].max()), int(group["seeds"].min())
        alone, together = (
            minimum_detectable_effect(deviation, seeds, alpha=alpha)
            for alpha in (0.05, 0.05 / FAMILY)
        )
        rows.append(
            {
                "towers": setting,
                "metric": metric,
                "seeds": seeds,
                "the paper's gain": gains[str(metric)],
                "found alone": alone,
                "found in a family": together,
            }
        )
    return pd.DataFrame(rows)


def chance_rsum(images: int, captions: int) -> float:
    """Return the rSum of a random ranking, in percent, of N images with c = M / N captions each.

    Captions are drawn without replacement: an image has a hit in the first K with probability
    1 − C(M − c, K) / C(M, K). ``images`` is N, ``captions`` is M, a multiple of N.

    >>> round(chance_rsum(1000, 5000), 2)
    3.2
    """
    own = captions // images
    total = 0.0
    for k in (1, 5, 10):
        missed = 1.0
        for place in range(min(k, captions)):
            missed *= max(0, captions - own - place) / (captions - place)
        total += 100 * (1 - missed) + 100 * min(1.0, k / images)
    return total


def conclusion(
    compared: pd.DataFrame, signals: pd.DataFrame, powers: pd.DataFrame, trained: Sequence[str]
) -> str:
    """Return sentences on what trained towers show, from the comparisons.

    Args:
        compared: Of :func:`compare`.
        signals: Of :func:`signal_table`.
        powers: Of :func:`power`.
        trained: The settings whose towers are trained.
    """
    sentences = []
    for setting in trained:
        rows = compared[(compared["towers"] == setting) & (compared["method"] == PAPER_METHOD)]
        differences = [
            f"{row.metric} against {row.baseline} "
            f"{with_interval(row.estimate, row.low, row.high)}, {row.verdict}"
            for row in rows.itertuples()
        ]
        seen = signals[(signals["towers"] == setting) & (signals["method"] == FIXED)]
        own = signals[(signals["towers"] == setting) & (signals["method"] == PAPER_METHOD)]
        found = powers[powers["towers"] == setting]
        reach = ", ".join(
            f"{row._asdict()['metric']} {effect:.2f}"
            for row, effect in zip(found.itertuples(), found["found alone"], strict=True)
        )
        sentences.append(
            f"**{setting.capitalize()}.** `{PAPER_METHOD}`: {'; '.join(differences)}. The two "
            f"directions' variances differ by {seen['differ'].iloc[0]:.2%} in a typical batch, "
            f"and the weights leave 1 by {own['furthest'].iloc[0]:.3f} at most, at γ = "
            f"{own['gamma'].iloc[0]:g}. These seeds would find, alone, a true "
            f"difference of {reach} points."
        )
    shown = beyond_chance(compared[compared["towers"].isin(trained)])
    if shown.empty:
        sentences.append("With trained towers no difference is more than chance.")
    else:
        which = ", ".join(
            f"{row.towers}, {row.method} {row.verdict} {row.metric} against {row.baseline}"
            for row in shown.itertuples()
        )
        sentences.append(f"More than chance: {which}.")
    return " ".join(sentences)


def differ_chart(table: pd.DataFrame) -> alt.Chart:
    """Draw :func:`ratio_by_progress`: how far the variances differ, one line per setting."""
    chart: alt.Chart = (
        alt.Chart(table)
        .mark_line(point=True)
        .encode(
            alt.X("progress:Q").title("share of the run's steps, %"),
            alt.Y("differ:Q").title("row against column variance, %"),
            alt.Color("towers:N").sort(list(dict.fromkeys(table["towers"]))).title(None),
            tooltip=[
                "towers:N",
                alt.Tooltip("progress:Q", format=".0f"),
                alt.Tooltip("differ:Q", format=".3f"),
            ],
        )
        .properties(
            width="container",
            height=260,
            title=alt.Title(
                "How far the variances of the two directions differ",
                subtitle="of the fixed loss's similarities, absolute, mean over batches and seeds",
            ),
        )
    )
    return chart
