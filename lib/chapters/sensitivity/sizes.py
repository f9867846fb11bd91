"""The effect against the number of training images, and the setting that deserves a recommendation.

Every method is tuned anew at every size, on validation, with the same budget.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from lib.chapters.parameters import SensitivityParameters
from lib.chapters.shared.figures import signed, with_interval
from lib.chapters.shared.findings import Recommendation
from lib.chapters.shared.methods import (
    CCA,
    MORE_CAPTIONS,
    canonical_grid,
    scheduled,
    temperature_grid,
)
from lib.chapters.shared.tuning import results_table, tune, tune_methods
from lib.chapters.shared.verdicts import PAPER_METHOD, PRIMARY_METRICS, against, estimates
from lib.runs import RunConfig, RunRecord
from lib.statistics import compare_pairs, paired_comparison
from lib.training import Lab

FIXED = "fixed"
DECAY = "fixed, decay"
SHARP = "variance × sharpness"
BOTH = f"{SHARP}, decay"
CAPTIONS = MORE_CAPTIONS
CANDIDATES = (CCA, DECAY, BOTH, CAPTIONS)
"""The settings that may be recommended, each more costly than the one before: heads in closed form,
the fixed loss with a cosine decay of the learning rate, a scheduled temperature with that decay,
and the fixed loss on several captions of each image in every step, which costs more time."""


def at_size(parameters: SensitivityParameters, train_images: int) -> RunConfig:
    """Return what all runs at a size share; a small subset gets more epochs, so that it has at
    least ``least_steps`` steps."""
    return RunConfig.of(parameters, train_images=train_images).with_steps(parameters.least_steps)


def tune_at(lab: Lab, parameters: SensitivityParameters, train_images: int) -> dict[str, RunConfig]:
    """Tune the fixed loss, the paper's scheduler and :data:`CANDIDATES` at a size, on validation.

    The fixed loss is tuned over the temperature at the middle learning rate, then over the rate at
    the best temperature; all methods get its rate. The others are tuned over its temperature and
    the next two below it in ``temperatures``, with equally many candidates each. (That they prefer
    colder ones was seen on validation at one size, in the main comparison.)

    Args:
        lab: Where to train.
        parameters: The notebook's.
        train_images: The size.

    Returns:
        Method to configuration (the seed has no meaning).
    """
    seeds = range(parameters.tuning_seeds)
    base = at_size(parameters, train_images)
    rates = parameters.learning_rates
    middle = rates[len(rates) // 2]
    by_temperature = _best(lab, temperature_grid(base, parameters.temperatures, [middle]), seeds)
    fixed = _best(lab, temperature_grid(base, [by_temperature.temperature], rates), seeds)
    near = neighbours(parameters.temperatures, fixed.temperature)
    around = parameters.model_copy(update={"scheduled_temperatures": near})
    directed = tune_methods(lab, around, [PAPER_METHOD], base=fixed).chosen[PAPER_METHOD]
    falling = fixed.model_copy(update={"learning_rate_decay": "cosine"})
    decayed = _best(lab, temperature_grid(falling, near, parameters.decayed_rates), seeds)
    sharp = tune_methods(lab, around, [SHARP], base=decayed).chosen[SHARP]
    several = [
        fixed.model_copy(update={"temperature": tau, "captions_at_once": count})
        for tau in near
        for count in parameters.caption_counts
    ]
    captions = _best(lab, several, seeds)
    heads = _best(lab, canonical_grid(base, parameters.ridges, parameters.powers), seeds)
    return {
        FIXED: fixed,
        PAPER_METHOD: directed,
        CCA: heads,
        DECAY: decayed,
        BOTH: sharp,
        CAPTIONS: captions,
    }


def neighbours(temperatures: Sequence[float], best: float, count: int = 3) -> list[float]:
    """Return ``count`` temperatures: ``best`` and the next below it, or the lowest if too few are.

    >>> neighbours([0.05, 0.07, 0.085, 0.1, 0.125, 0.15], 0.125)
    [0.085, 0.1, 0.125]
    >>> neighbours([0.2, 0.05, 0.1], 0.05, 2)
    [0.05, 0.1]
    """
    ordered = sorted(temperatures)
    last = max(ordered.index(best) + 1, min(count, len(ordered)))
    return ordered[max(0, last - count) : last]


def size_runs(replicated: Mapping[int, Mapping[str, Sequence[RunRecord]]]) -> pd.DataFrame:
    """Return one row per run: ``train_images``, ``validation_rsum`` at the chosen epoch, and the
    columns of :func:`lib.chapters.shared.tuning.results_table`."""
    tables = []
    for size, methods in replicated.items():
        best = [r.validation_rsum for records in methods.values() for r in records]
        tables.append(results_table(methods).assign(train_images=size, validation_rsum=best))
    return pd.concat(tables, ignore_index=True)


def against_fixed(runs: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Compare every method with the fixed loss at every size, one family.

    Args:
        runs: What :func:`size_runs` returns.
        margin: Points within which a difference is none.

    Returns:
        Columns as :func:`lib.chapters.shared.verdicts.against` returns them, and ``train_images``.
    """
    by_size = runs.sort_values("train_images", kind="stable")
    return against(by_size, FIXED, margin, within="train_images")


def constants_table(
    tuned: Mapping[int, Mapping[str, RunConfig]], runs: pd.DataFrame
) -> pd.DataFrame:
    """Return what was chosen at each size with its mean test metrics, and rSum's paired difference
    from the fixed loss with its 95 % interval, which is outside the verdicts' family.

    Args:
        tuned: Size to method to its configuration.
        runs: What :func:`size_runs` returns.
    """
    reached = runs.groupby(["train_images", "method"])[[*PRIMARY_METRICS, "rsum"]].mean()
    rsum = runs.set_index(["train_images", "method", "seed"])["rsum"].sort_index()
    rows = []
    for size, methods in tuned.items():
        for method, config in methods.items():
            metrics = reached.loc[(size, method)]
            gain = paired_comparison(rsum[size, method], rsum[size, FIXED])
            rows.append(
                {
                    "images": size,
                    "method": method,
                    **_constants(config),
                    **{name: metrics[column] for column, name in PRIMARY_METRICS.items()},
                    "rSum": metrics["rsum"],
                    "rSum − fixed": ""
                    if method == FIXED
                    else with_interval(gain.estimate, gain.low, gain.high),
                }
            )
    return pd.DataFrame(rows)


def _constants(config: RunConfig) -> dict[str, str]:
    """Return what was tuned, as the table of constants writes it."""
    if config.start is not None:
        own = f"ridge {config.start.image_ridge:g}, power {config.start.power:g}"
        temperature, rate = "", ""
    else:
        temperature, rate = f"{config.temperature:g}", f"{config.learning_rate:g}"
        own = f"{config.captions_at_once} captions" if config.captions_at_once > 1 else ""
    if config.schedule is not None:
        target, gamma = scheduled(config).target, scheduled(config).gamma
        temperature = temperature if target is None else "scheduled"
        own = f"γ = {gamma:g}" if target is None else f"target {target:g}"
    return {
        "τ": temperature,
        "own constants": own,
        "learning rate": rate,
        "epochs": f"{config.epochs}",
    }


def choose(runs: pd.DataFrame, compared: pd.DataFrame) -> str:
    """Choose the setting to recommend; :data:`FIXED` if none is better.

    Validation chooses among :data:`CANDIDATES`: one replaces an earlier one if its validation rSum
    is better at every size, by the paired comparisons as one family. The choice is then
    recommended if, on the test split, it improves on the fixed loss in at least half of the
    comparisons and is nowhere worse.

    Args:
        runs: What :func:`size_runs` returns.
        compared: What :func:`against_fixed` returns.
    """
    candidate = CANDIDATES[0]
    for richer in CANDIDATES[1:]:
        # Almost no margin, since the question is which is better, not by how much.
        on_validation = compare_pairs(
            runs, [(richer, candidate)], ["validation_rsum"], margin=1e-9, within="train_images"
        )
        if all(one.verdict.value == "improves" for one in on_validation):
            candidate = richer
    verdicts = compared[compared["method"] == candidate]["verdict"]
    helps = (verdicts == "improves").mean() >= 0.5 and "worsens" not in set(verdicts)
    return candidate if helps else FIXED


def recommend(
    name: str,
    notebook: str,
    tuned: Mapping[int, Mapping[str, RunConfig]],
    compared: pd.DataFrame,
    train_images: int,
) -> Recommendation:
    """Return the recommended setting as the first page shows it.

    Args:
        name: What :func:`choose` returns.
        notebook: The name of the notebook that publishes it.
        tuned: Size to method to its configuration.
        compared: What :func:`against_fixed` returns.
        train_images: The size whose constants are given as an example.
    """
    rows = compared[compared["method"] == name]
    config = tuned[train_images][name]
    titles = {
        CCA: "Heads in closed form: regularised canonical correlation analysis",
        FIXED: "Fixed weights, a fixed temperature, both tuned",
        DECAY: "Fixed weights and a learning rate that decays",
        BOTH: "A learning rate that decays and a scheduled temperature",
        CAPTIONS: "Fixed weights, several captions of each image in every step",
    }
    return Recommendation(
        name=titles[name],
        notebook=notebook,
        summary=_summary(rows, compared, train_images),
        settings=_settings(config),
        estimates=estimates(rows),
    )


def _settings(config: RunConfig) -> dict[str, str]:
    """Return a setting's constants as a reader would set them."""
    if config.start is not None:
        return {
            "heads": "linear, by lib.models.canonical_heads, on all captions of the training "
            "images",
            "ridges": f"{config.start.image_ridge:g} (images), {config.start.text_ridge:g} "
            "(captions), in units of the variance of a standardised feature",
            "power of the correlations": f"{config.start.power:g}",
        }
    settings = {
        "loss": "symmetric InfoNCE, both directions weighted 1",
        "learning rate": f"{config.learning_rate:g}"
        + (", cosine decay to 0" if config.learning_rate_decay == "cosine" else ", constant"),
    }
    if config.schedule is None:
        settings["temperature"] = f"{config.temperature:g}, fixed"
    else:
        settings["temperature"] = (
            "set so that the logits keep a standard deviation of "
            f"{scheduled(config).target:g} (variance × sharpness)"
        )
    if config.captions_at_once > 1:
        settings["captions of an image in a step"] = f"{config.captions_at_once}"
    return {**settings, "batch, epochs": f"{config.batch_size}, {config.epochs}"}


def _summary(rows: pd.DataFrame, compared: pd.DataFrame, train_images: int) -> str:
    """Return sentences on a setting's gain, from its rows; without rows, that none is better."""
    if rows.empty:
        tried = compared[compared["method"].isin(CANDIDATES)]
        wins = (tried["verdict"] == "improves").groupby(tried["method"], sort=False).sum()
        losses = (tried["verdict"] == "worsens").groupby(tried["method"], sort=False).sum()
        nearest = str(wins.idxmax())
        own = tried[tried["method"] == nearest]
        gains = ", ".join(
            f"{row.metric} {signed(row.estimate)} at {row.train_images:,} images"
            for row in own[own["verdict"] == "improves"].itertuples()
        )
        return (
            "Of the settings tried at every size of the training set none beats it by the rule set "
            "beforehand: an improvement of R@1 in at least half of the comparisons over sizes, "
            f"nowhere a loss. The nearest (“{nearest}”) improves in {wins[nearest]} of {len(own)}"
            f"{': ' if gains else ''}{gains}; it loses in {losses[nearest]}. What pays is tuning "
            "the temperature and the learning rate."
        )
    own = "the temperature and the first learning rate"
    if rows["method"].iloc[0] == CCA:
        own = "the ridges and the power"
    won = int((rows["verdict"] == "improves").sum())
    return (
        f"It improves on the tuned fixed loss in {won} of {len(rows)} comparisons over "
        f"{rows['train_images'].nunique()} sizes of the training set and is nowhere worse. "
        f"The constants are those tuned at {train_images:,} images; tune {own} on your own "
        "validation split."
    )


def _best(lab: Lab, candidates: Sequence[RunConfig], seeds: Sequence[int]) -> RunConfig:
    return tune(lab, {FIXED: candidates}, seeds).chosen[FIXED]
