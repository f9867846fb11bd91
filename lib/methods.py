"""The study's methods, tuned: every chapter takes them from here, so that they share their runs."""

from collections.abc import Sequence
from typing import Any

from lib.parameters import MethodOptions
from lib.runs import RunConfig, ScheduleConfig
from lib.tuning import Tuning, method_grids, temperature_grid, tune

ACTUATORS = ("direction", "magnitude", "sharpness", "sample")
MORE_CAPTIONS = "fixed, more captions"
"""The fixed loss, with several captions of each image in every step."""
SIGNALS = ("variance", "entropy", "spread")


def tune_methods(
    parameters: MethodOptions,
    names: Sequence[str] | None = None,
    *,
    base: RunConfig | None = None,
    robust_powers: Sequence[float] = (),
    **options: Any,
) -> Tuning:
    """Tune methods on validation as the main comparison does: the learning rate on the fixed loss,
    then each method's own constants with the same number of candidates.

    Args:
        parameters: A notebook's.
        names: ``"fixed"``, ``"learned τ"`` or ``"signal × actuator"``; default, all of them.
        base: What all candidates share, its learning rate tuned already; default, what the
            parameters say, with the learning rate of the best fixed loss.
        robust_powers: Candidates for q of robust InfoNCE (Chuang et al., CVPR 2022), each with each
            of the scheduled temperatures; given, it is the method ``"robust loss"``.
        **options: For :func:`lib.training.train`.

    Raises:
        ValueError: There is no method of that name.
    """
    seeds = range(parameters.tuning_seeds)
    if base is None:
        base = RunConfig.of(parameters)
        fixed = temperature_grid(base, parameters.temperatures, parameters.learning_rates)
        rate = tune({"fixed": fixed}, seeds, **options).chosen["fixed"].learning_rate
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
    return tune({name: grids[name] for name in names or grids}, seeds, **options)


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
    if not isinstance(config.schedule, ScheduleConfig):
        raise ValueError(f"{config.method} has no scheduler")
    return config.schedule
