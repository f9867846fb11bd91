"""What the runs of a stack minimise: schedules, losses, and the weights of the losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib.losses import LOSSES, weighted_mean
from lib.models import LearnedTemperature
from lib.rivals import GradNorm, IndividualTemperatures
from lib.runs import RunConfig
from lib.runs.schedules import (
    INDIVIDUAL_BOUNDS,
    GradNormConfig,
    IndividualTemperatureConfig,
    constants,
)
from lib.schedulers import Schedule
from lib.training.data import batches
from lib.training.schedules import Replayed, Schedulers


class Objective:
    """The objectives of a stack, with what is learned besides the heads.

    Args:
        configs: The runs.
        replayed: Finished runs that some of the runs replay.
        device: Of the similarities.
    """

    def __init__(
        self, configs: Sequence[RunConfig], replayed: Replayed, device: torch.device
    ) -> None:
        steps = len(batches(configs[0].train_images, configs[0].batch_size))
        self._schedulers = Schedulers(configs, replayed, steps, device)
        self._losses = Losses(configs, device)
        self._balance = _Balance(configs, device)
        self._learned = torch.tensor([c.learn_temperature for c in configs], device=device)
        self._fixed = torch.tensor([config.temperature for config in configs], device=device)
        # Saves the gradient with respect to the temperatures if no run learns one.
        self._any_learned = any(config.learn_temperature for config in configs)
        # Runs with a fixed temperature get a placeholder that no gradient reaches.
        self._temperature = LearnedTemperature(
            torch.where(self._learned, self._fixed, 1.0), batch_shape=(len(configs),)
        ).to(device)

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups of what is learned besides the heads, without decay."""
        learned = [self._temperature.log_scale, *self._losses.learned]
        return [{"params": learned, "weight_decay": 0.0}, *self._schedulers.groups()]

    @property
    def differentiates(self) -> bool:
        """Whether a call differentiates the losses by the shared parameters itself."""
        return self._balance.rule is not None

    def __call__(
        self, similarity: Tensor, place: Tensor, shared: Sequence[Tensor]
    ) -> tuple[Tensor, Schedule]:
        """Return each run's loss, (R,), and the schedule that the loss used.

        Args:
            similarity: (R, B, B).
            place: (R, B) position of each pair's image among the images of its run.
            shared: The last parameters, (R, …), that both directions share.
        """
        tau = self._fixed
        if self._any_learned:
            tau = torch.where(self._learned, self._temperature(), tau)
        schedule = self._schedulers(similarity, tau.detach())
        tau = torch.where(self._learned, tau, schedule.temperature)
        losses, tau = self._losses(similarity, tau, place)
        used = self._balance(losses, schedule._replace(temperature=tau), shared)
        return self._schedulers.penalised(weighted_mean(losses, used)), used

    def state(self) -> list[dict[str, Tensor]]:
        """Return all that the next step depends on, except the optimiser's state."""
        return [module.state_dict() for module in self._modules()]

    def restore(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Continue from what :meth:`state` returned."""
        for module, saved in zip(self._modules(), state, strict=True):
            module.load_state_dict(saved)

    def _modules(self) -> list[nn.Module]:
        learned = [self._temperature, nn.ParameterList(self._losses.learned)]
        rules = [rule for rule in (self._losses.individual, self._balance.rule) if rule is not None]
        return [*learned, *rules, *self._schedulers.modules()]

    def project(self) -> None:
        """Put learned temperatures back into their bounds, after each optimiser step."""
        self._temperature.project()


class Losses:
    """The losses of a stack; runs with the same loss share a call."""

    def __init__(self, configs: Sequence[RunConfig], device: torch.device) -> None:
        names: dict[str, list[int]] = {}
        individual = []
        for run, config in enumerate(configs):
            if isinstance(config.schedule, IndividualTemperatureConfig):
                individual.append(run)
            else:
                names.setdefault(config.loss, []).append(run)
        self.learned: list[nn.Parameter] = []
        self._parts: list[tuple[Tensor, _Part]] = []
        for name, runs in names.items():
            part = _Part(name, [configs[run] for run in runs], device)
            self._parts.append((torch.tensor(runs, device=device), part))
            self.learned += part.learned
        self.individual: IndividualTemperatures | None = None
        self._individual_runs = torch.tensor(individual, device=device)
        if individual:
            members = [configs[run] for run in individual]
            rules = [config.schedule for config in members]
            self.individual = IndividualTemperatures(
                members[0].train_images,
                start=torch.tensor([config.temperature for config in members]),
                rho=constants(rules, "rho"),
                step=constants(rules, "step"),
                bounds=INDIVIDUAL_BOUNDS,
                batch_shape=(len(members),),
            ).to(device)

    def __call__(
        self, similarity: Tensor, temperature: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of every query, (R, 2, B), and each run's temperature, (R,): the mean
        over the batch if every query has its own."""
        if len(self._parts) == 1 and self.individual is None:
            return self._parts[0][1](similarity, temperature, place), temperature
        losses = similarity.new_empty(similarity.shape[0], 2, similarity.shape[-1])
        for runs, part in self._parts:
            losses[runs] = part(similarity[runs], temperature[runs], place[runs])
        if self.individual is not None:
            runs, rule = self._individual_runs, self.individual
            used = rule.temperature.gather(-1, place[runs].unsqueeze(-2).expand(-1, 2, -1))
            temperature = temperature.index_copy(0, runs, used.mean(dim=(-2, -1)))
            losses[runs] = rule(similarity[runs], place[runs])
        return losses, temperature


class _Part:
    """A loss that runs share, with each run's constant."""

    def __init__(self, name: str, configs: Sequence[RunConfig], device: torch.device) -> None:
        self._loss = LOSSES[name]
        self._copies = 1 if self._loss.grouped else configs[0].captions_at_once
        self._constant: Tensor | None = None
        self.learned: list[nn.Parameter] = []
        if self._loss.default is None:
            return
        given = [config.loss_constant for config in configs]
        values = [self._loss.default if value is None else value for value in given]
        self._constant = torch.tensor(values, device=device)
        self._is_learned = torch.tensor([config.learn_bias for config in configs], device=device)
        if any(config.learn_bias for config in configs):
            self.learned.append(nn.Parameter(self._constant.clone()))

    def __call__(self, similarity: Tensor, temperature: Tensor, place: Tensor) -> Tensor:
        constant = self._constant
        if self.learned and constant is not None:
            constant = torch.where(self._is_learned, self.learned[0], constant)
        if self._copies > 1:
            return self._of_each_draw(similarity, temperature)
        group = place if self._loss.grouped else None
        return self._loss(similarity, temperature, constant, group=group)

    def _of_each_draw(self, similarity: Tensor, temperature: Tensor) -> Tensor:
        """Return the losses among the first captions of all images, among the second ones, and so
        on. An image's copies are neighbours: a pair's index is image · copies + draw."""
        runs, pairs = similarity.shape[0], similarity.shape[-1]
        of_images = (pairs // self._copies, self._copies)
        draws = similarity.view(runs, *of_images, *of_images).diagonal(dim1=2, dim2=4)
        losses = self._loss(draws.movedim(-1, 1), temperature[:, None])
        return losses.movedim(1, -1).reshape(runs, 2, pairs)


class _Balance:
    """The weights of runs that set them by the gradients of their losses."""

    def __init__(self, configs: Sequence[RunConfig], device: torch.device) -> None:
        rule = [c.schedule if isinstance(c.schedule, GradNormConfig) else None for c in configs]
        self._balanced = torch.tensor([r is not None for r in rule], device=device)[:, None]
        self.rule: GradNorm | None = None
        if any(rule):
            # Gradients are taken for the whole stack, so every run gets a rule, if only a dummy.
            self.rule = GradNorm(
                alpha=torch.tensor([1.0 if r is None else r.alpha for r in rule]),
                step=torch.tensor([1.0 if r is None else r.step for r in rule]),
                batch_shape=(len(configs),),
            ).to(device)

    def __call__(self, losses: Tensor, schedule: Schedule, shared: Sequence[Tensor]) -> Schedule:
        if self.rule is None:
            return schedule
        balanced = self.rule(losses.mean(dim=-1), shared)
        return schedule._replace(weights=torch.where(self._balanced, balanced, schedule.weights))
