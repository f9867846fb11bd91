"""The study's methods and those of other papers, tuned alike and ranked on one leaderboard."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from lib.chapters.parameters import RivalsParameters
from lib.chapters.shared.figures import signed, with_interval
from lib.chapters.shared.methods import MORE_CAPTIONS, methods, temperature_grid
from lib.chapters.shared.tuning import Tuning, tune, tune_methods
from lib.chapters.shared.verdicts import FAMILY, PRIMARY_METRICS, overall
from lib.runs import RunConfig
from lib.runs.schedules import (
    AnalyticUncertaintyConfig,
    CosineConfig,
    DynamicWeightAverageConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    RivalConstants,
    UncertaintyConfig,
)
from lib.schedulers import SIGNALS
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

MULTI_POSITIVE = "multi-positive loss"

BOARD_METRICS = {**PRIMARY_METRICS, "mean_recall": "mean recall"}
"""The two R@1 of the paper's claims, and rSum divided by its six recalls."""


@dataclass(frozen=True)
class Entrant:
    """Another paper's method on the board, or a control.

    Attributes:
        sets: What the method sets, and the fixed loss does not.
        constants: Maps the notebook's parameters to the changes in a configuration, one per value
            of its constants.
        temperatures: Maps the parameters and the tuned fixed loss to the temperatures, each of
            which is combined with each change; default, the scheduled temperatures.
        symbol: How a table writes the loss's own constant.
        control: Whether the entrant is what a rival changes beside its rule, without the rule.
    """

    sets: Scheduled
    constants: Callable[[RivalsParameters], list[dict[str, Any]]]
    temperatures: Callable[[RivalsParameters, RunConfig], Sequence[float]] = (
        lambda parameters, fixed: parameters.scheduled_temperatures
    )
    symbol: str = ""
    control: bool = False

    def candidates(self, parameters: RivalsParameters, fixed: RunConfig) -> list[RunConfig]:
        """Return the configurations that the method is tuned over.

        Args:
            parameters: The notebook's.
            fixed: The fixed loss, tuned. Its learning rate is every entrant's.
        """
        return [
            RunConfig.model_validate(fixed.model_dump() | {"temperature": tau} | changes)
            for tau in self.temperatures(parameters, fixed)
            for changes in self.constants(parameters)
        ]


def _at_fixed(parameters: RivalsParameters, fixed: RunConfig) -> Sequence[float]:
    """Return the temperature of the tuned fixed loss alone."""
    return [fixed.temperature]


def _losses(name: str, constants: Sequence[float], **more: Any) -> list[dict[str, Any]]:
    return [{"loss": name, "loss_constant": constant, **more} for constant in constants]


def _schedules(schedules: Iterable[RivalConstants]) -> list[dict[str, Any]]:
    return [{"schedule": schedule} for schedule in schedules]


def _swing(tau: float, ratio: float, period: float) -> CosineConfig:
    """Return a swing whose bounds have a ratio, and τ as their geometric mean."""
    return CosineConfig(low=tau / ratio**0.5, high=tau * ratio**0.5, period=period)


ENTRANTS: dict[str, Entrant] = {
    "cosine temperature": Entrant(
        "temperature",
        lambda p: _schedules(
            _swing(tau, ratio, p.cosine_period)
            for tau in p.scheduled_temperatures
            for ratio in p.cosine_ratios
        ),
        _at_fixed,
    ),
    # They start at the temperature of the fixed loss.
    "individual temperatures": Entrant(
        "temperature",
        lambda p: _schedules(
            IndividualTemperatureConfig(rho=rho, step=step)
            for rho in p.divergences
            for step in p.individual_steps
        ),
        _at_fixed,
    ),
    # Its two weights may fall together.
    "uncertainty weighting": Entrant(
        "weights and size of the loss",
        lambda p: _schedules(UncertaintyConfig(rate=rate) for rate in p.uncertainty_rates),
    ),
    "analytic uncertainty": Entrant(
        "weights of the directions",
        lambda p: _schedules(AnalyticUncertaintyConfig(softness=t) for t in p.softnesses),
    ),
    "dynamic weight average": Entrant(
        "weights of the directions",
        lambda p: _schedules(
            DynamicWeightAverageConfig(softness=t, period=1) for t in p.softnesses
        ),
    ),
    "GradNorm": Entrant(
        "weights of the directions",
        lambda p: _schedules(
            GradNormConfig(alpha=alpha, step=p.gradnorm_step) for alpha in p.gradnorm_alphas
        ),
    ),
    "label smoothing": Entrant(
        "loss", lambda p: _losses("label_smoothing", p.smoothings), symbol="ε"
    ),
    "decoupled loss": Entrant(
        "loss", lambda p: [{"loss": "decoupled"}], lambda p, fixed: p.temperatures
    ),
    "hardest negatives": Entrant(
        "loss", lambda p: _losses("hardest_negatives", p.hinge_margins), _at_fixed, "margin"
    ),
    "sigmoid loss": Entrant("loss", lambda p: _losses("sigmoid", p.biases), symbol="b"),
    "sigmoid loss, learned": Entrant(
        "loss",
        lambda p: _losses("sigmoid", p.biases, learn_bias=True, learn_temperature=True),
        symbol="b",
    ),
    MULTI_POSITIVE: Entrant(
        "loss",
        lambda p: [{"loss": "multi_positive", "captions_at_once": n} for n in p.caption_counts],
    ),
    MORE_CAPTIONS: Entrant(
        "captions of a step",
        lambda p: [{"captions_at_once": count} for count in p.caption_counts],
        control=True,
    ),
}
"""Other papers' methods on the board, and the controls."""

SETS: dict[str, Scheduled] = STUDY | {name: rival.sets for name, rival in ENTRANTS.items()}

SYMBOLS = {
    "temperature": "τ",
    "gamma": "γ",
    "target": "c",
    "softness": "T",
    "alpha": "α",
    "rho": "ρ",
    "step": "η",
    "captions_at_once": "captions an image",
}
"""How a table writes a tuned constant, if not by its name; an entrant has its loss's symbol."""


def tune_field(lab: Lab, parameters: RivalsParameters) -> tuple[Tuning, pd.DataFrame]:
    """Tune the study's methods and every rival on validation, with equally many candidates each.

    Args:
        lab: Where to train.
        parameters: The notebook's.

    Returns:
        What was chosen, the study's methods first, and one row per method: ``method``, ``sets``,
        ``constants`` (the chosen values of those that were tuned), ``tuned`` (how many) and
        ``validation_rsum``. The learning rate, tuned on the fixed loss for all, is not counted.

    Raises:
        ValueError: A rival has more or fewer candidates than the fixed loss.
    """
    studied = tune_methods(lab, parameters, list(STUDY))
    fixed = studied.chosen["fixed"]
    baseline = temperature_grid(fixed, parameters.temperatures, [fixed.learning_rate])
    rivals = {name: rival.candidates(parameters, fixed) for name, rival in ENTRANTS.items()}
    tuned = tune(lab, {"fixed": baseline, **rivals}, range(parameters.tuning_seeds))
    own = tuned.table[tuned.table["method"] != "fixed"]
    table = pd.concat([studied.table, own], ignore_index=True)
    chosen = {**studied.chosen, **{name: tuned.chosen[name] for name in rivals}}
    known = methods()
    grids = {**{name: known[name](parameters, fixed) for name in STUDY}, **rivals}
    score = table[table["chosen"]].set_index("method")["validation_rsum"]
    rows = []
    for method, config in chosen.items():
        names = tuned_constants(grids[method])
        rows.append(
            {
                "method": method,
                "sets": SETS[method],
                "constants": ", ".join(_written(method, config, name) for name in names),
                "tuned": len(names),
                "validation_rsum": score[method],
            }
        )
    return Tuning(chosen, table), pd.DataFrame(rows)


def tuned_constants(candidates: Sequence[RunConfig]) -> list[str]:
    """Return the names of the constants, of the run or of its schedule, in which candidates differ.

    >>> taus = [RunConfig(temperature=tau, loss="sigmoid", loss_constant=-5) for tau in (0.1, 0.2)]
    >>> tuned_constants(taus)
    ['temperature']
    """
    table = pd.DataFrame([_constants(config) for config in candidates])
    return [name for name in table.columns if table[name].nunique() > 1]


def compare(runs: pd.DataFrame, margin: float, baseline: str = "fixed") -> pd.DataFrame:
    """Compare every method with the fixed loss on :data:`BOARD_METRICS`, one family per metric.

    Args:
        runs: One row per run: ``method``, ``seed`` and the metrics.
        margin: Points within which a difference is none.
        baseline: The method that the others are compared with.

    Returns:
        Rows as :func:`lib.chapters.shared.verdicts.against` gives them, with ``sets``.
    """
    tables = [
        comparison_table(
            compare_methods(averaged(runs), baseline, [name], margin=margin, family=FAMILY),
            BOARD_METRICS,
        )
        for name in BOARD_METRICS
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(sets=table["method"].map(SETS))


def averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with ``mean_recall``, their ``rsum`` divided by its six recalls."""
    return runs.assign(mean_recall=runs["rsum"] / 6)


def compare_captions(runs: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Compare the multi-positive loss with the fixed loss on as many captions, as :func:`compare`
    does."""
    pair = runs[runs["method"].isin([MULTI_POSITIVE, MORE_CAPTIONS])]
    return compare(pair, margin, MORE_CAPTIONS)


def captions_conclusion(table: pd.DataFrame) -> str:
    """Return a sentence on :func:`compare_captions`'s table: the effect of the loss alone."""
    changes = ", ".join(
        f"{row.metric} {with_interval(row.estimate, row.low, row.high)} ({row.verdict})"
        for row in table.itertuples()
    )
    return (
        f"Against the fixed loss on as many captions, the multi-positive loss changes: {changes}."
    )


def conclusion(table: pd.DataFrame) -> str:
    """Return sentences on what beats the fixed loss, from the table of :func:`compare`.

    A method is better if some metric improves and none worsens, worse if the reverse holds.
    """
    found = {method: overall(rows) for method, rows in table.groupby("method", sort=False)}
    scores = table[table["metric"] == BOARD_METRICS["mean_recall"]].set_index("method")["estimate"]
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
            continue  # The first sentence names this method already.
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


def _constants(config: RunConfig) -> dict[str, Any]:
    dumped = config.model_dump(exclude={"seed"})
    schedule = dumped.pop("schedule") or {}
    if "low" in schedule:
        # The run's own temperature plays no role.
        dumped.pop("temperature")
    return dumped | schedule


def _written(method: str, config: RunConfig, name: str) -> str:
    symbol = ENTRANTS[method].symbol if name == "loss_constant" else SYMBOLS.get(name, name)
    start = "start at " if name == "temperature" and config.learn_temperature else ""
    return f"{start}{symbol} = {_constants(config)[name]:.3g}"
