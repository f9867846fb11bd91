"""The losses and the schedulers of a stack of runs, and what is replayed from finished runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.losses import LOSSES
from lib.runs import (
    STEP_COLUMNS,
    ConstantConfig,
    ReplayConfig,
    RunConfig,
    RunRecord,
    ScheduleConfig,
)
from lib.schedulers import DEFAULT_TARGETS, Fixed, Schedule, Scheduler, Trace
from lib.seeds import generator

Sources = Mapping[RunConfig, RunRecord]
"""Finished runs that others replay, by configuration."""


class Schedulers:
    """The schedulers of a stack: runs with the same signal and actuator share one."""

    def __init__(
        self, configs: Sequence[RunConfig], sources: Sources, device: torch.device
    ) -> None:
        self._parts: list[tuple[Tensor, nn.Module]] = []
        kinds: dict[tuple[str, str], list[int]] = {}
        for run, config in enumerate(configs):
            kinds.setdefault(_kind(config), []).append(run)
        for kind, runs in kinds.items():
            module = _module(kind, [configs[run] for run in runs], sources)
            self._parts.append((torch.tensor(runs, device=device), module.to(device)))

    def __call__(self, similarity: Tensor, temperature: Tensor) -> Schedule:
        """Return the schedule of every run, (R, …), for similarities (R, B, B)."""
        weights = similarity.new_empty(similarity.shape[0], 2)
        sample_weights = similarity.new_empty(similarity.shape[0], 2, similarity.shape[-1])
        tau = torch.empty_like(temperature)
        for runs, module in self._parts:
            part = module(similarity[runs], temperature[runs])
            weights[runs], sample_weights[runs], tau[runs] = part
        return Schedule(weights, sample_weights, tau)

    def state(self) -> list[dict[str, Tensor]]:
        """Return what the schedulers remember of the steps so far."""
        return [module.state_dict() for _, module in self._parts]

    def restore(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from what :meth:`state` returned."""
        for (_, module), saved in zip(self._parts, state, strict=True):
            module.load_state_dict(saved)


class Losses:
    """The losses of a stack: runs with the same loss share a call, each with its own constant."""

    def __init__(self, configs: Sequence[RunConfig], device: torch.device) -> None:
        names: dict[str, list[int]] = {}
        for run, config in enumerate(configs):
            names.setdefault(config.loss, []).append(run)
        self._parts = []
        for name, runs in names.items():
            loss = LOSSES[name]
            constant = None
            if loss.default is not None:
                given = [configs[run].loss_constant for run in runs]
                values = [loss.default if value is None else value for value in given]
                constant = torch.tensor(values, device=device)
            self._parts.append((torch.tensor(runs, device=device), loss, constant))

    def __call__(self, similarity: Tensor, temperature: Tensor) -> Tensor:
        """Return the loss of every query, (R, 2, B), for similarities (R, B, B)."""
        if len(self._parts) == 1:
            _, loss, constant = self._parts[0]
            return loss(similarity, temperature, constant)
        losses = similarity.new_empty(similarity.shape[0], 2, similarity.shape[-1])
        for runs, loss, constant in self._parts:
            losses[runs] = loss(similarity[runs], temperature[runs], constant)
        return losses


def _kind(config: RunConfig) -> tuple[str, str]:
    match config.schedule:
        case None:
            return "fixed", ""
        case ScheduleConfig(signal=signal, actuator=actuator):
            return signal, actuator
        case ReplayConfig():
            return "trace", "weights and temperature"
        case ConstantConfig():
            return "trace", "weights"


def _module(kind: tuple[str, str], configs: Sequence[RunConfig], sources: Sources) -> nn.Module:
    if kind[0] == "fixed":
        return Fixed()
    if kind[0] == "trace":
        weights, temperatures = zip(*(_trace(config, sources) for config in configs), strict=True)
        if kind[1] == "weights":
            return Trace(_same_length(weights))
        return Trace(_same_length(weights), _same_length(temperatures))
    schedules = [c.schedule for c in configs if isinstance(c.schedule, ScheduleConfig)]
    signal, actuator = kind
    default = DEFAULT_TARGETS[signal]
    return Scheduler(
        signal,
        actuator,
        gamma=torch.tensor([s.gamma for s in schedules]),
        beta=torch.tensor([s.beta for s in schedules]),
        warmup=torch.tensor([s.warmup for s in schedules]),
        target=torch.tensor([default if s.target is None else s.target for s in schedules]),
        batch_shape=(len(schedules),),
    )


def _trace(config: RunConfig, sources: Sources) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what a run is played: weights (T, 2) and temperatures (T,), float32."""
    schedule, source = config.schedule, config.source
    if isinstance(schedule, ConstantConfig):
        weight = schedule.weight_i2t
        return np.array([[weight, 2 - weight]], dtype=np.float32), np.ones(1, dtype=np.float32)
    if not isinstance(schedule, ReplayConfig) or source is None:
        raise TypeError(f"{config.method} replays nothing")
    columns = [STEP_COLUMNS.index(c) for c in ("weight_i2t", "weight_t2i", "temperature")]
    path = sources[source].steps[:, columns]
    if schedule.form == "mean":
        weights = path[:, :2].mean(axis=0, dtype=np.float64)[None]
        tau = np.exp(np.log(path[:, 2:].astype(np.float64)).mean(axis=0))
    elif schedule.form == "surrogate":
        # One draw for both directions, so that weights that sum to 2 go on doing so.
        draw = generator(config.seed, "surrogate").uniform(0, 2 * np.pi, len(path) // 2 + 1)
        weights = np.stack([surrogate(path[:, d], draw) for d in (0, 1)], axis=1).clip(0, 2)
        tau = np.exp(surrogate(np.log(path[:, 2].astype(np.float64)), draw))
    else:
        weights, tau = path[:, :2], path[:, 2]
    return weights.astype(np.float32), tau.astype(np.float32)


def surrogate(path: NDArray[np.floating], phases: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a random path with the mean, variance and circular autocorrelation of another.

    The phases of its Fourier transform are drawn anew (Theiler et al., Physica D 58, 1992, §2.4.1).

    Args:
        path: (T,).
        phases: (T // 2 + 1,) radians to add to those of the transform; those of the mean and, for
            an even T, of the highest frequency are left as they are.

    >>> path = np.array([1.0, 2.0, 4.0, 1.0])
    >>> drawn = surrogate(path, np.array([0.3, 1.0, 0.2]))
    >>> bool(np.isclose(drawn.mean(), 2.0)), bool(np.isclose(drawn.var(), path.var()))
    (True, True)
    """
    transform = np.fft.rfft(path.astype(np.float64))
    turned = phases.copy()
    turned[0] = 0.0
    if len(path) % 2 == 0:
        turned[-1] = 0.0
    return np.fft.irfft(transform * np.exp(1j * turned), n=len(path))


def _same_length(paths: Sequence[NDArray[np.float32]]) -> Tensor:
    """Stack paths along a new first axis; a shorter one holds its last step."""
    longest = max(len(path) for path in paths)
    held = [np.concatenate([p, np.repeat(p[-1:], longest - len(p), axis=0)]) for p in paths]
    return torch.from_numpy(np.stack(held))
