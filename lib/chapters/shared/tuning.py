"""Equal tuning on validation, then paired replication on the test split.

Every method is a list of candidate configurations of the same length; the one with the best mean
validation rSum is chosen, and only that one is run on every seed and read on the test split.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from lib.chapters.shared.methods import methods, temperature_grid
from lib.chapters.shared.options import MethodOptions
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.schedulers import ACTUATORS
from lib.training import Lab

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Tuning:
    """What tuning chose.

    Attributes:
        chosen: Method to configuration (the seed has no meaning).
        table: One row per candidate: ``method``, ``temperature``, ``learning_rate``, ``ridge``,
            ``power``, ``gamma``, ``target``, ``validation_rsum`` (mean over the tuning seeds,
            percent points), ``standard_error`` and ``chosen``.
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
        replicated: Key to its runs: a method's name, or a named tuple, whose fields become columns
            in place of ``method``.
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


def tune_methods(
    lab: Lab, parameters: MethodOptions, names: Iterable[str], *, base: RunConfig | None = None
) -> Tuning:
    """Tune methods on validation as the main comparison does: the learning rate on the fixed loss,
    then each method's own constants with the same number of candidates.

    Args:
        lab: Where to train.
        parameters: A notebook's.
        names: Of :func:`methods`.
        base: What all candidates share, with the learning rate already tuned; default, from the
            parameters, with the learning rate of the best fixed loss.

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
        grids = {
            name: [c.model_copy(update=tuned) if c.epochs else c for c in grid]
            for name, grid in grids.items()
        }
    return tune(lab, grids, seeds)


def _constants(config: RunConfig) -> dict[str, float | None]:
    schedule = config.scheduler
    sharp = schedule is not None and ACTUATORS[schedule.actuator].sets_temperature
    start = config.start
    return {
        "temperature": None if sharp or not config.epochs else config.temperature,
        "learning_rate": config.learning_rate if config.epochs else None,
        "ridge": None if start is None else start.image_ridge,
        "power": None if start is None else start.power,
        "gamma": None if schedule is None or sharp else schedule.gamma,
        "target": schedule.target if sharp and schedule is not None else None,
    }
