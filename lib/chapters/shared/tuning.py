"""Equal tuning on validation, then paired replication on the test split.

Every method is a list of candidate configurations of the same length; the one with the best mean
validation rSum is chosen, and only that one is run on every seed and read on the test split.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from lib.chapters.shared.options import MethodOptions
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord, ScheduleConfig
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


def method_grids(
    base: RunConfig,
    *,
    temperatures: Sequence[float],
    signals: Sequence[str],
    actuators: Sequence[str],
    scheduled_temperatures: Sequence[float],
    gammas: Sequence[float],
    sample_gammas: Sequence[float],
    targets: Mapping[str, Sequence[float]],
    beta: float,
    warmup: int,
) -> dict[str, list[RunConfig]]:
    """Return the candidates of the fixed baseline, the learned temperature and every scheduler.

    Args:
        base: What all candidates share.
        temperatures: Of ``fixed``, and where ``learned τ`` starts.
        signals: Of the schedulers.
        actuators: Of the schedulers.
        scheduled_temperatures: Of every actuator but ``sharpness``, each with each of ``gammas``.
        gammas: Exponents of ``direction`` and ``magnitude``.
        sample_gammas: Those of ``sample``.
        targets: Signal to what ``sharpness`` holds.
        beta: Smoothing.
        warmup: Neutral steps.
    """
    grids = {
        "fixed": temperature_grid(base, temperatures, [base.learning_rate]),
        "learned τ": temperature_grid(base, temperatures, [base.learning_rate], learned=True),
    }
    for actuator in actuators:
        for signal in signals:
            if actuator == "sharpness":
                constants = [{"target": target} for target in targets[signal]]
                taus = [base.temperature]
            else:
                exponents = sample_gammas if actuator == "sample" else gammas
                constants = [{"gamma": gamma} for gamma in exponents]
                taus = list(scheduled_temperatures)
            grids[f"{signal} × {actuator}"] = [
                base.model_copy(
                    update={
                        "temperature": tau,
                        "schedule": ScheduleConfig.model_validate(
                            {
                                "signal": signal,
                                "actuator": actuator,
                                "beta": beta,
                                "warmup": warmup,
                                **constant,
                            }
                        ),
                    }
                )
                for tau in taus
                for constant in constants
            ]
    return grids


def _constants(config: RunConfig) -> dict[str, float | None]:
    schedule = config.scheduler
    sharp = schedule is not None and schedule.actuator == "sharpness"
    return {
        "temperature": None if sharp else config.temperature,
        "learning_rate": config.learning_rate,
        "gamma": None if schedule is None or sharp else schedule.gamma,
        "target": schedule.target if sharp and schedule is not None else None,
    }


ACTUATORS = ("direction", "magnitude", "sharpness", "sample")

MORE_CAPTIONS = "fixed, more captions"
"""The fixed loss, with several captions of each image in every step."""

SIGNALS = ("variance", "entropy", "spread")


def tune_methods(
    lab: Lab,
    parameters: MethodOptions,
    names: Sequence[str] | None = None,
    *,
    base: RunConfig | None = None,
    robust_powers: Sequence[float] = (),
) -> Tuning:
    """Tune methods on validation as the main comparison does: the learning rate on the fixed loss,
    then each method's own constants with the same number of candidates.

    Args:
        lab: Where to train.
        parameters: A notebook's.
        names: ``"fixed"``, ``"learned τ"`` or ``"signal × actuator"``; default, all of them.
        base: What all candidates share, its learning rate tuned already; default, what the
            parameters say, with the learning rate of the best fixed loss.
        robust_powers: Candidates for q of robust InfoNCE (Chuang et al., CVPR 2022), each with each
            of the scheduled temperatures; given, it is the method ``"robust loss"``.

    Raises:
        ValueError: There is no method of that name.
    """
    seeds = range(parameters.tuning_seeds)
    if base is None:
        base = RunConfig.of(parameters)
        fixed = temperature_grid(base, parameters.temperatures, parameters.learning_rates)
        rate = tune(lab, {"fixed": fixed}, seeds).chosen["fixed"].learning_rate
        base = base.model_copy(update={"learning_rate": rate})
    grids = method_candidates(parameters, base)
    if robust_powers:
        grids["robust loss"] = [
            base.model_copy(update={"temperature": tau, "loss": "rince", "loss_constant": power})
            for tau in parameters.scheduled_temperatures
            for power in robust_powers
        ]
    unknown = [name for name in names or () if name not in grids]
    if unknown:
        raise ValueError(f"no method is called {', '.join(unknown)}; there are {', '.join(grids)}")
    return tune(lab, {name: grids[name] for name in names or grids}, seeds)


def method_candidates(parameters: MethodOptions, base: RunConfig) -> dict[str, list[RunConfig]]:
    """Return the candidates of every method, by name.

    Args:
        parameters: A notebook's.
        base: What all candidates share, its learning rate tuned already.
    """
    return method_grids(
        base,
        temperatures=parameters.temperatures,
        signals=SIGNALS,
        actuators=ACTUATORS,
        scheduled_temperatures=parameters.scheduled_temperatures,
        gammas=parameters.gammas,
        sample_gammas=parameters.sample_gammas,
        targets={
            "variance": parameters.variance_targets,
            "entropy": parameters.entropy_targets,
            "spread": parameters.spread_targets,
        },
        beta=parameters.beta,
        warmup=parameters.warmup,
    )


def scheduled(config: RunConfig) -> ScheduleConfig:
    """Return the scheduler of a configuration that has one.

    Raises:
        ValueError: It has none.
    """
    if config.scheduler is None:
        raise ValueError(f"{config.method} has no scheduler")
    return config.scheduler
