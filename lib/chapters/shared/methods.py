"""The methods of the chapters by name, with the candidates that each is tuned over.

Nothing here imports charts or towers: to check a parameter that names a method takes 2 s, not 9.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from lib.chapters.shared.options import MethodOptions
from lib.runs import CanonicalConfig, RunConfig, ScheduleConfig
from lib.schedulers import ACTUATORS, SIGNALS

MORE_CAPTIONS = "fixed, more captions"
"""The fixed loss, with several captions of each image in every step."""

CCA = "CCA"
"""Heads in closed form."""
CCA_WIDTH = 512
"""Most canonical directions: more than the shorter of the study's features has."""

Candidates = Callable[[MethodOptions, RunConfig], list[RunConfig]]
"""What maps a notebook's parameters and what all candidates share to a method's candidates."""


def methods() -> dict[str, Candidates]:
    """Return the function that makes each method's candidates, by the method's name.

    >>> list(methods())[:3]
    ['fixed', 'learned τ', 'variance × direction']
    """
    return {
        "fixed": partial(_fixed, learned=False),
        "learned τ": partial(_fixed, learned=True),
        **scheduled_methods(SIGNALS, ACTUATORS),
        "robust loss": _robust,
        CCA: _canonical,
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


def canonical_grid(
    base: RunConfig, ridges: Sequence[float], powers: Sequence[float]
) -> list[RunConfig]:
    """Return heads in closed form with every ridge and power.

    The ridge of the captions is a tenth of that of the images. What the heads do not depend on,
    such as a learning rate, has its default, so that all chapters share these runs.
    """
    kept = ("corpus", "on_bad_sample", "image_tower", "text_tower", "train_images", "noise")
    shared = {name: getattr(base, name) for name in kept}
    return [
        RunConfig(
            **shared,
            epochs=0,
            embedding_dim=CCA_WIDTH,
            start=CanonicalConfig(image_ridge=ridge, text_ridge=ridge / 10, power=power),
        )
        for ridge in ridges
        for power in powers
    ]


def _canonical(parameters: MethodOptions, base: RunConfig) -> list[RunConfig]:
    return canonical_grid(base, parameters.ridges, parameters.powers)


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
    """Return a configuration's scheduler.

    Raises:
        ValueError: The configuration has none.
    """
    if config.scheduler is None:
        raise ValueError(f"{config.method} has no scheduler")
    return config.scheduler
