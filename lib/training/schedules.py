"""The schedulers of a stack of runs, and the schedules that are replayed from finished runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.rivals import UncertaintyWeights
from lib.runs import STEP_COLUMNS, ReplayConfig, RunConfig, RunRecord
from lib.schedulers import Fixed, Schedule, Trace
from lib.utils.seeds import generator

Replayed = Mapping[RunConfig, RunRecord]
"""Finished runs, by configuration, whose schedules others replay."""


class Schedulers:
    """The schedulers of a stack: runs of the same kind share one.

    Args:
        configs: The runs.
        replayed: Finished runs that some of the runs replay.
        steps: Steps per epoch.
        device: Of the similarities.
    """

    def __init__(
        self, configs: Sequence[RunConfig], replayed: Replayed, steps: int, device: torch.device
    ) -> None:
        self._parts: list[tuple[Tensor, nn.Module]] = []
        self._learned: list[tuple[Tensor, UncertaintyWeights, float]] = []
        groups: dict[tuple[Any, ...], list[int]] = {}
        for run, config in enumerate(configs):
            schedule = config.schedule
            shared = [getattr(schedule, name) for name in schedule.sharing] if schedule else []
            groups.setdefault((type(schedule), *shared), []).append(run)
        for key, members in groups.items():
            module = _build([configs[run] for run in members], replayed, steps).to(device)
            runs = torch.tensor(members, device=device)
            self._parts.append((runs, module))
            if isinstance(module, UncertaintyWeights):
                self._learned.append((runs, module, float(key[-1])))

    def __call__(self, similarity: Tensor, temperature: Tensor) -> Schedule:
        """Return the schedule of every run, (R, …), for similarities (R, B, B)."""
        if len(self._parts) == 1:
            alone: Schedule = self._parts[0][1](similarity, temperature)
            return alone
        weights = similarity.new_empty(similarity.shape[0], 2)
        sample_weights = similarity.new_empty(similarity.shape[0], 2, similarity.shape[-1])
        tau = torch.empty_like(temperature)
        for runs, module in self._parts:
            part = module(similarity[runs], temperature[runs])
            weights[runs], sample_weights[runs], tau[runs] = part
        return Schedule(weights, sample_weights, tau)

    def penalised(self, loss: Tensor) -> Tensor:
        """Return the losses (R,) plus the terms that keep learned weights from 0."""
        for runs, module, _ in self._learned:
            loss = loss.index_add(0, runs, module.penalty())
        return loss

    def modules(self) -> list[nn.Module]:
        """Return the modules that hold the state of the steps so far."""
        return [module for _, module in self._parts]

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups of learned weights, by learning rate, without decay."""
        return [
            {"params": [module.log_variance], "lr": rate, "weight_decay": 0.0}
            for _, module, rate in self._learned
        ]


def _build(configs: Sequence[RunConfig], replayed: Replayed, steps: int) -> nn.Module:
    """Return the scheduler that runs share."""
    schedules = [config.schedule for config in configs]
    if schedules[0] is None:
        return Fixed()
    if isinstance(schedules[0], ReplayConfig):
        paths = zip(*(_replayed_path(config, replayed) for config in configs), strict=True)
        weights, temperatures = map(_same_length, paths)
        return Trace(weights, temperatures)
    return schedules[0].build(schedules, steps)


def _replayed_path(
    config: RunConfig, replayed: Replayed
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights (T, 2) and temperatures (T,) that a run replays, float32."""
    schedule, source = config.schedule, config.source
    if not isinstance(schedule, ReplayConfig) or source is None:
        raise TypeError(f"{config.method} replays nothing")
    columns = [STEP_COLUMNS.index(c) for c in ("weight_i2t", "weight_t2i", "temperature")]
    path = replayed[source].steps[:, columns]
    if schedule.form == "mean":
        weights = path[:, :2].mean(axis=0, dtype=np.float64)[None]
        tau = np.exp(np.log(path[:, 2:].astype(np.float64)).mean(axis=0))
    elif schedule.form == "surrogate":
        # One draw for both directions, so that weights that sum to 2 still do.
        draw = generator(config.seed, "surrogate").uniform(0, 2 * np.pi, len(path) // 2 + 1)
        weights = np.stack([surrogate(path[:, d], draw) for d in (0, 1)], axis=1).clip(0, 2)
        tau = np.exp(surrogate(np.log(path[:, 2].astype(np.float64)), draw))
    else:
        weights, tau = path[:, :2], path[:, 2]
    return weights.astype(np.float32), tau.astype(np.float32)


def surrogate(path: NDArray[np.floating], phases: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a random path with the mean, variance and circular autocorrelation of ``path``, by
    new phases of its Fourier transform (Theiler et al., Physica D 58, 1992, §2.4.1).

    Args:
        path: (T,).
        phases: (T // 2 + 1,) radians to add to the transform's phases, except those of the mean
            and, for an even T, of the highest frequency.

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
    """Stack paths along a new first axis; a shorter path repeats its last step."""
    longest = max(len(path) for path in paths)
    held = [np.concatenate([p, np.repeat(p[-1:], longest - len(p), axis=0)]) for p in paths]
    return torch.from_numpy(np.stack(held))
