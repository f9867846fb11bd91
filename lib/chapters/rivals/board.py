"""The field: the study's methods and other papers' rivals, tuned alike and ranked on one board."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from lib.chapters.parameters import RivalsParameters
from lib.chapters.shared.figures import signed
from lib.chapters.shared.tuning import (
    MORE_CAPTIONS,
    SIGNALS,
    Tuning,
    method_candidates,
    temperature_grid,
    tune,
    tune_methods,
)
from lib.chapters.shared.verdicts import PRIMARY, overall
from lib.runs import RunConfig
from lib.runs.schedules import (
    AnalyticUncertaintyConfig,
    CosineConfig,
    DynamicWeightAverageConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    UncertaintyConfig,
)
from lib.statistics import compare_methods, comparison_table
from lib.training import Lab

Scheduled = Literal[
    "nothing",
    "temperature",
    "weights of the directions",
    "weights and size of the loss",
    "loss",
    "captions of a step",
]

STUDY: dict[str, Scheduled] = {
    "fixed": "nothing",
    "learned τ": "temperature",
    "variance × sharpness": "temperature",
    **{f"{signal} × direction": "weights of the directions" for signal in SIGNALS},
}
"""The study's own methods on the board, and what each sets."""

RIVALS: dict[str, Scheduled] = {
    "cosine temperature": "temperature",
    "individual temperatures": "temperature",
    # Its two weights may fall together.
    "uncertainty weighting": "weights and size of the loss",
    "analytic uncertainty": "weights of the directions",
    "dynamic weight average": "weights of the directions",
    "GradNorm": "weights of the directions",
    "label smoothing": "loss",
    "decoupled loss": "loss",
    "hardest negatives": "loss",
    "sigmoid loss": "loss",
    "sigmoid loss, learned": "loss",
    "multi-positive loss": "loss",
}
"""Other papers' methods on the board, and what each sets in place of the fixed loss's."""

MULTI_POSITIVE = "multi-positive loss"

CONTROLS: dict[str, Scheduled] = {MORE_CAPTIONS: "captions of a step"}
"""No paper's method: what a rival brings beside its rule, without the rule."""

SETS: dict[str, Scheduled] = {**STUDY, **RIVALS, **CONTROLS}

METRICS = {**PRIMARY, "mean_recall": "mean recall"}
"""What is compared: the two R@1 of the paper's claims, and rSum divided by its six recalls."""

SYMBOLS = {
    "temperature": "τ",
    "gamma": "γ",
    "target": "c",
    "low": "low",
    "high": "high",
    "rate": "rate",
    "softness": "T",
    "alpha": "α",
    "rho": "ρ",
    "step": "η",
    "captions_at_once": "captions an image",
    "label_smoothing": "ε",
    "hardest_negatives": "margin",
    "sigmoid": "b",
}
"""How a table writes a tuned constant; a loss's own goes by the loss."""


def rival_grids(parameters: RivalsParameters, fixed: RunConfig) -> dict[str, list[RunConfig]]:
    """Return the candidates of every rival and of the controls, by name.

    Args:
        parameters: The notebook's.
        fixed: The fixed loss, tuned. Its temperature is where individual temperatures start; its
            learning rate is every rival's.
    """

    def grid(*constants: Mapping[str, Any], taus: Sequence[float] | None = None) -> list[RunConfig]:
        return [
            RunConfig.model_validate(fixed.model_dump() | {"temperature": tau} | dict(own))
            for tau in (parameters.scheduled_temperatures if taus is None else taus)
            for own in constants
        ]

    sigmoids = [{"loss": "sigmoid", "loss_constant": bias} for bias in parameters.biases]
    learned = {"learn_bias": True, "learn_temperature": True}
    return {
        "cosine temperature": grid(
            *(
                {"schedule": _swing(tau, ratio, parameters.cosine_period)}
                for tau in parameters.scheduled_temperatures
                for ratio in parameters.cosine_ratios
            ),
            taus=[fixed.temperature],
        ),
        "individual temperatures": grid(
            *(
                {"schedule": IndividualTemperatureConfig(rho=rho, step=step)}
                for rho in parameters.divergences
                for step in parameters.individual_steps
            ),
            taus=[fixed.temperature],
        ),
        "uncertainty weighting": grid(
            *({"schedule": UncertaintyConfig(rate=rate)} for rate in parameters.uncertainty_rates)
        ),
        "analytic uncertainty": grid(
            *({"schedule": AnalyticUncertaintyConfig(softness=t)} for t in parameters.softnesses)
        ),
        "dynamic weight average": grid(
            *(
                {"schedule": DynamicWeightAverageConfig(softness=t, period=1)}
                for t in parameters.softnesses
            )
        ),
        "GradNorm": grid(
            *(
                {"schedule": GradNormConfig(alpha=alpha, step=parameters.gradnorm_step)}
                for alpha in parameters.gradnorm_alphas
            )
        ),
        "label smoothing": grid(
            *(
                {"loss": "label_smoothing", "loss_constant": share}
                for share in parameters.smoothings
            )
        ),
        "decoupled loss": grid({"loss": "decoupled"}, taus=parameters.temperatures),
        "hardest negatives": grid(
            *(
                {"loss": "hardest_negatives", "loss_constant": hinge}
                for hinge in parameters.hinge_margins
            ),
            taus=[fixed.temperature],
        ),
        "sigmoid loss": grid(*sigmoids),
        "sigmoid loss, learned": grid(*(one | learned for one in sigmoids)),
        MULTI_POSITIVE: grid(
            *(
                {"loss": "multi_positive", "captions_at_once": count}
                for count in parameters.caption_counts
            )
        ),
        MORE_CAPTIONS: grid(*({"captions_at_once": count} for count in parameters.caption_counts)),
    }


def tune_field(lab: Lab, parameters: RivalsParameters) -> tuple[Tuning, pd.DataFrame]:
    """Tune the study's methods and every rival on validation, with as many candidates each.

    Args:
        lab: Where to train.
        parameters: The notebook's.

    Returns:
        What was chosen, the study's methods first, and one row a method: ``method``, ``sets``,
        ``constants`` (the chosen values of those that were tuned), ``tuned`` (how many) and
        ``validation_rsum``. The learning rate, tuned on the fixed loss for all, is not counted.

    Raises:
        ValueError: A rival has more or fewer candidates than the fixed loss.
    """
    studied = tune_methods(lab, parameters, list(STUDY))
    fixed = studied.chosen["fixed"]
    baseline = temperature_grid(fixed, parameters.temperatures, [fixed.learning_rate])
    rivals = rival_grids(parameters, fixed)
    tuned = tune(lab, {"fixed": baseline, **rivals}, range(parameters.tuning_seeds))
    own = tuned.table[tuned.table["method"] != "fixed"]
    table = pd.concat([studied.table, own], ignore_index=True)
    chosen = {**studied.chosen, **{name: tuned.chosen[name] for name in rivals}}
    grids = {**method_candidates(parameters, fixed), **rivals}
    score = table[table["chosen"]].set_index("method")["validation_rsum"]
    rows = []
    for method, config in chosen.items():
        names = tuned_constants(grids[method])
        rows.append(
            {
                "method": method,
                "sets": SETS[method],
                "constants": ", ".join(_written(config, name) for name in names),
                "tuned": len(names),
                "validation_rsum": score[method],
            }
        )
    return Tuning(chosen, table), pd.DataFrame(rows)


def tuned_constants(candidates: Sequence[RunConfig]) -> list[str]:
    """Return the names of the constants in which candidates differ, those of a schedule by theirs.

    >>> taus = [RunConfig(temperature=tau, loss="sigmoid", loss_constant=-5) for tau in (0.1, 0.2)]
    >>> tuned_constants(taus)
    ['temperature']
    """
    table = pd.DataFrame([_constants(config) for config in candidates])
    return [name for name in table.columns if table[name].nunique() > 1]


def compare(runs: pd.DataFrame, margin: float, baseline: str = "fixed") -> pd.DataFrame:
    """Compare every method with the fixed loss on :data:`METRICS`, one Holm family.

    Args:
        runs: A row a run: ``method``, ``seed`` and the metrics.
        margin: Points within which a difference is none.
        baseline: The method that the others are compared with.

    Returns:
        Rows as :func:`lib.chapters.shared.verdicts.against` gives them, with ``sets``.
    """
    table = comparison_table(
        compare_methods(averaged(runs), baseline, list(METRICS), margin=margin), METRICS
    )
    return table.assign(sets=table["method"].map(SETS))


def averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with ``mean_recall``, their ``rsum`` divided by its six recalls."""
    return runs.assign(mean_recall=runs["rsum"] / 6)


def compare_captions(runs: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Compare the multi-positive loss with the fixed loss on as many captions.

    Args:
        runs, margin: As for :func:`compare`.

    Returns:
        Rows as :func:`compare` gives them, a Holm family of their own.
    """
    pair = runs[runs["method"].isin([MULTI_POSITIVE, MORE_CAPTIONS])]
    return compare(pair, margin, MORE_CAPTIONS)


def captions_verdict(table: pd.DataFrame) -> str:
    """Say what the multi-positive loss adds to the captions that it brings.

    Args:
        table: What :func:`compare_captions` returns.
    """
    said = ", ".join(
        f"{row.metric} {signed(row.estimate)} [{signed(row.low)}, {signed(row.high)}] "
        f"({row.verdict})"
        for row in table.itertuples()
    )
    return f"Against the fixed loss on as many captions, the multi-positive loss changes: {said}."


def verdict(table: pd.DataFrame) -> str:
    """Say what beats the fixed loss and what that sets, in sentences made from the comparisons.

    A method is better if some metric improves and none worsens, and so on with worse.

    Args:
        table: What :func:`compare` returns.
    """
    found = {method: overall(rows) for method, rows in table.groupby("method", sort=False)}
    scores = table[table["metric"] == METRICS["mean_recall"]].set_index("method")["estimate"]
    better = sorted(
        (name for name, answer in found.items() if answer == "improves"),
        key=lambda name: -scores[name],
    )
    if better:
        named = ", ".join(f"{name} ({SETS[name]}, {signed(scores[name])})" for name in better)
        first = f"Better than the tuned fixed loss, with the gain in mean recall: {named}."
    else:
        first = "No method is shown to be better than the tuned fixed loss."
    words = {
        "improves": "better",
        "worsens": "worse",
        "equivalent": "equivalent",
        "undecided": "undecided",
    }
    groups = []
    for kind in dict.fromkeys(SETS[name] for name in found):
        answers = [answer for name, answer in found.items() if SETS[name] == kind]
        if answers == ["improves"]:
            # The first sentence has said it.
            continue
        counted = ", ".join(
            f"{answers.count(answer)} {word}" for answer, word in words.items() if answer in answers
        )
        rows = table[table["sets"] == kind]
        furthest = rows.loc[rows["estimate"].abs().idxmax()]
        groups.append(
            f"of {len(answers)} that set the {kind}, {counted} (the furthest: "
            f"{furthest['method']}, {signed(furthest['estimate'])} in {furthest['metric']})"
        )
    return first if not groups else f"{first} By what they set: {'; '.join(groups)}."


def _swing(tau: float, ratio: float, period: float) -> CosineConfig:
    """Return a swing whose bounds have a ratio, and τ as their geometric mean."""
    return CosineConfig(low=tau / ratio**0.5, high=tau * ratio**0.5, period=period)


def _constants(config: RunConfig) -> dict[str, Any]:
    dumped = config.model_dump(exclude={"seed"})
    schedule = dumped.pop("schedule") or {}
    if "low" in schedule:
        # The run's own temperature plays no role.
        dumped.pop("temperature")
    return dumped | schedule


def _written(config: RunConfig, name: str) -> str:
    symbol = SYMBOLS[config.loss if name == "loss_constant" else name]
    start = "start at " if name == "temperature" and config.learn_temperature else ""
    return f"{start}{symbol} = {_constants(config)[name]:.3g}"
