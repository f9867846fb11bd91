"""Equal tuning on validation, then paired replication on the test split.

Every method is a list of candidate configurations of the same length; the one with the best mean
validation rSum is chosen, and only that one is run on every seed and read on the test split.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pandas as pd

from lib.chapters.shared.options import MethodOptions
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord, ScheduleConfig
from lib.schedulers import ACTUATORS, SIGNALS
from lib.training import Lab

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Tuning:
    """What tuning chose.

    Attributes:
        chosen: Method to configuration (its seed is of no meaning).
        table: One row a candidate: ``method``, ``temperature``, ``learning_rate``, ``gamma``,
            ``target``, ``validation_rsum`` (mean over the tuning seeds, percent points),
            ``standard_error`` and ``chosen``.
    """

    chosen: Mapping[str, RunConfig]
    table: pd.DataFrame


def tune(lab: Lab, candidates: Mapping[str, Sequence[RunConfig]], seeds: Sequence[int]) -> Tuning:
    """Choose each method's configuration by its mean validation rSum over the tuning seeds.

    Args:
        lab: Where to train.
        candidates: Method to its candidates; every method has equally many.
        seeds: The tuning seeds.

    Raises:
        ValueError: A method has more candidates than another, or there is no seed.
    """
    budgets = {method: len(configs) for method, configs in candidates.items()}
    if len(set(budgets.values())) > 1 or not all(budgets.values()):
        raise ValueError(
            f"every method must get the same, non-zero number of candidates; they have {budgets}"
        )
    if not seeds:
        raise ValueError("tuning needs at least one seed")
    tried = [(method, candidate) for method, configs in candidates.items() for candidate in configs]
    records = lab.train([candidate.with_seed(seed) for _, candidate in tried for seed in seeds])
    rows = []
    for place, (method, candidate) in enumerate(tried):
        scores = pd.Series(
            [r.validation_rsum for r in records[place * len(seeds) : (place + 1) * len(seeds)]]
        )
        rows.append(
            {
                "method": method,
                **_constants(candidate),
                "validation_rsum": scores.mean(),
                "standard_error": scores.sem() if len(seeds) > 1 else None,
            }
        )
    table = pd.DataFrame(rows)
    # The first of equals, so that the order of the candidates settles a tie and nothing else does.
    winners = table.groupby("method", sort=False)["validation_rsum"].idxmax()
    table["chosen"] = table.index.isin(winners)
    return Tuning({method: tried[place][1] for method, place in winners.items()}, table)


def replicate(
    lab: Lab, chosen: Mapping[Key, RunConfig], seeds: Sequence[int]
) -> dict[Key, list[RunRecord]]:
    """Run each chosen configuration on every seed: key to records in seed order."""
    records = lab.train([config.with_seed(seed) for config in chosen.values() for seed in seeds])
    return {
        key: records[place * len(seeds) : (place + 1) * len(seeds)]
        for place, key in enumerate(chosen)
    }


def results_table(replicated: Mapping[Any, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one row per run: ``method``, ``seed``, ``best_epoch``, ``collapsed``, test metrics.

    Args:
        replicated: Key to its runs: a method's name, or a named tuple, whose fields then are
            columns in the place of ``method``.
    """
    return pd.DataFrame(
        [
            {
                **({"method": key} if isinstance(key, str) else key._asdict()),
                "seed": record.config.seed,
                "best_epoch": record.best_epoch,
                "collapsed": record.collapsed,
                **{name: record.test[name] for name in TEST_COLUMNS},
            }
            for key, records in replicated.items()
            for record in records
        ]
    )


def temperature_grid(
    base: RunConfig,
    temperatures: Sequence[float],
    learning_rates: Sequence[float],
    *,
    learned: bool = False,
) -> list[RunConfig]:
    """Return every temperature, fixed or the start of a learned one, with every learning rate."""
    return [
        base.model_copy(
            update={"temperature": tau, "learning_rate": rate, "learn_temperature": learned}
        )
        for rate in learning_rates
        for tau in temperatures
    ]


def _constants(config: RunConfig) -> dict[str, float | None]:
    schedule = config.scheduler
    sharp = schedule is not None and ACTUATORS[schedule.actuator].sets_temperature
    return {
        "temperature": None if sharp else config.temperature,
        "learning_rate": config.learning_rate,
        "gamma": None if schedule is None or sharp else schedule.gamma,
        "target": schedule.target if sharp and schedule is not None else None,
    }


MORE_CAPTIONS = "fixed, more captions"
"""The fixed loss, with several captions of each image in every step."""

Candidates = Callable[[MethodOptions, RunConfig], list[RunConfig]]
"""What maps a notebook's parameters and what all candidates share to a method's candidates."""


def methods() -> dict[str, Candidates]:
    """Return what makes each method's candidates, by the method's name.

    >>> list(methods())[:3]
    ['fixed', 'learned τ', 'variance × direction']
    """
    return {
        "fixed": partial(_fixed, learned=False),
        "learned τ": partial(_fixed, learned=True),
        **scheduled_methods(SIGNALS, ACTUATORS),
        "robust loss": _robust,
    }


def scheduled_methods(signals: Iterable[str], actuators: Iterable[str]) -> dict[str, Candidates]:
    """Return those of :func:`methods` in which one of the signals drives one of the actuators.

    A signal without a scale sets no temperature.

    >>> list(scheduled_methods(["variance", "entropy"], ["direction", "sharpness"]))[1:3]
    ['entropy × direction', 'variance × sharpness']
    """
    return {
        f"{signal} × {actuator}": partial(_scheduled, signal, actuator)
        for actuator in actuators
        for signal in signals
        if SIGNALS[signal].scale or not ACTUATORS[actuator].sets_temperature
    }


def tune_methods(
    lab: Lab,
    parameters: MethodOptions,
    names: Iterable[str],
    *,
    base: RunConfig | None = None,
) -> Tuning:
    """Tune methods on validation as the main comparison does: the learning rate on the fixed loss,
    then each method's own constants with the same number of candidates.

    Args:
        lab: Where to train.
        parameters: A notebook's.
        names: Of :func:`methods`.
        base: What all candidates share, its learning rate tuned already; default, what the
            parameters say, with the learning rate of the best fixed loss.

    Raises:
        ValueError: There is no method of that name, or the parameters lack its candidates; nothing
            is trained then.
    """
    known, seeds = methods(), range(parameters.tuning_seeds)
    names = list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no method is called {', '.join(unknown)}; there are {', '.join(known)}")
    start = base or RunConfig.of(parameters, train_images=parameters.train_images)
    grids = {name: known[name](parameters, start) for name in names}
    if base is None:
        fixed = temperature_grid(start, parameters.temperatures, parameters.learning_rates)
        rate = tune(lab, {"fixed": fixed}, seeds).chosen["fixed"].learning_rate
        tuned = {"learning_rate": rate}
        grids = {name: [c.model_copy(update=tuned) for c in grid] for name, grid in grids.items()}
    return tune(lab, grids, seeds)


def _fixed(parameters: MethodOptions, base: RunConfig, *, learned: bool) -> list[RunConfig]:
    return temperature_grid(base, parameters.temperatures, [base.learning_rate], learned=learned)


def _scheduled(
    signal: str, actuator: str, parameters: MethodOptions, base: RunConfig
) -> list[RunConfig]:
    sets_temperature = ACTUATORS[actuator].sets_temperature
    taus = [base.temperature] if sets_temperature else parameters.scheduled_temperatures
    if not sets_temperature:
        gammas = "sample_gammas" if actuator == "sample" else "gammas"
        constants = [{"gamma": gamma} for gamma in _given(parameters, gammas, actuator)]
    elif signal in parameters.targets:
        constants = [{"target": target} for target in parameters.targets[signal]]
    else:
        raise ValueError(
            f"{signal} × {actuator} has no candidates: give targets some for {signal!r}"
        )
    schedules = [
        ScheduleConfig(
            signal=signal,
            actuator=actuator,
            beta=parameters.beta,
            warmup=parameters.warmup,
            **constant,
        )
        for constant in constants
    ]
    return [
        base.model_copy(update={"temperature": tau, "schedule": schedule})
        for tau in taus
        for schedule in schedules
    ]


def _robust(parameters: MethodOptions, base: RunConfig) -> list[RunConfig]:
    """Return robust InfoNCE (Chuang et al., CVPR 2022) with each q and scheduled temperature."""
    return [
        base.model_copy(update={"temperature": tau, "loss": "rince", "loss_constant": power})
        for tau in parameters.scheduled_temperatures
        for power in _given(parameters, "robust_powers", "robust loss")
    ]


def _given(parameters: MethodOptions, name: str, method: str) -> Sequence[float]:
    """Return the values of a parameter that some notebooks have."""
    if name not in type(parameters).model_fields:
        raise ValueError(f"{method} is tuned over {name}, which this notebook does not have")
    values: Sequence[float] = getattr(parameters, name)
    return values


def scheduled(config: RunConfig) -> ScheduleConfig:
    """Return the scheduler of a configuration that has one.

    Raises:
        ValueError: It has none.
    """
    if config.scheduler is None:
        raise ValueError(f"{config.method} has no scheduler")
    return config.scheduler
