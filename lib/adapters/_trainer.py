"""The trainer of transformers that calls a loss: sentence-transformers' trainer is one, too.

A trainer passes a loss function nothing of itself, and a user who follows its documentation gives
it the loss and nothing else. So the trainer is looked up in the calling frames.
"""

import inspect
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..losses import ScheduledContrastiveLoss
from ..schedulers._state import State, copy_state, put_back

KEY = "variance_schedule"
"""Of a scheduler's state in ``trainer_state.json``, among the states of callbacks."""


def calling_trainer() -> Trainer | None:
    """Return the trainer among whose calls this one is, or None."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    return None


class TrainerSteps:
    """Let a loss follow a trainer: its optimiser steps, checkpoints and log.

    Args:
        loss: The loss whose scheduler takes the steps.
    """

    def __init__(self, loss: ScheduledContrastiveLoss) -> None:
        self._loss = loss
        # The scheduler of the first training, and its state before that.
        self._start: tuple[nn.Module, State] | None = None
        self._state: TrainerState | None = None
        self._step = -1

    def begin(self, trainer: Trainer, key: str = KEY) -> None:
        """Before each training call, tell the loss whether an optimiser step has come between.

        The first call of a training adds a callback, and loads the scheduler's state if the trainer
        has resumed from a checkpoint. A trainer with ``model_init`` makes a new model for each
        training, which the scheduler begins anew, too.

        Args:
            trainer: The trainer that calls.
            key: Of the state among those of other losses.
        """
        state = trainer.state
        if state is not self._state:
            scheduler = self._loss.scheduler
            if self._start is None or self._start[0] is not scheduler:
                self._start = scheduler, copy_state(scheduler)
            kept = _kept(state)
            if key in kept:
                load(self._loss, kept[key])
            elif trainer.model_init is not None:
                put_back(*self._start)
            followers = trainer.callback_handler.callbacks
            if not any(isinstance(c, _Follower) and c.loss is self._loss for c in followers):
                # In front of the reporters, which see what it adds to the log.
                followers.insert(0, _Follower(self._loss, key))
        self._loss.advances = state is not self._state or state.global_step != self._step
        self._state, self._step = state, state.global_step


class _Follower(TrainerCallback):
    """Log a scheduler's numbers, and keep its state with the trainer's."""

    def __init__(self, loss: ScheduledContrastiveLoss, key: str) -> None:
        self.loss, self.key = loss, key

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the state; the trainer writes it into its next checkpoint."""
        state_dict = self.loss.state_dict()
        _kept(state)[self.key] = {name: value.tolist() for name, value in state_dict.items()}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add weights, signals and temperature to the log of a training step."""
        if logs is not None and "loss" in logs:
            logs.update(self.loss.latest())
            state.log_history[-1].update(self.loss.latest())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the state of the best checkpoint, if the trainer has taken its model."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            saved = Path(state.best_model_checkpoint, "trainer_state.json")
            if saved.exists():
                callbacks = json.loads(saved.read_text(encoding="utf-8"))["stateful_callbacks"]
                # A checkpoint of a training without this loss has no state of it.
                if self.key in callbacks:
                    load(self.loss, callbacks[self.key])


def _kept(state: TrainerState) -> dict[str, Any]:
    """Return the states that the trainer's checkpoints hold, by name."""
    kept: Any = state.stateful_callbacks
    return cast(dict[str, Any], kept)


def load(loss: ScheduledContrastiveLoss, kept: dict[str, Any]) -> None:
    """Load a state that :class:`_Follower` kept: lists of numbers, exact as JSON."""
    wanted = loss.state_dict()
    found = {
        name: torch.tensor(kept[name], dtype=value.dtype)
        for name, value in wanted.items()
        if name in kept
    }
    wrong = [n for n, value in wanted.items() if n not in found or found[n].shape != value.shape]
    if wrong:
        raise ValueError(
            "trainer_state.json of the checkpoint is of a training with another scheduler: it "
            f"lacks this one's {', '.join(wrong)}; resume with the scheduler of that training"
        )
    loss.load_state_dict(found)
