"""One optimiser step of a stack of runs, with frozen or trained towers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lib.runs import RunConfig
from lib.schedulers import variance
from lib.training.objective import Objective


class TrainingStep:
    """Updates weights from a batch's similarities and returns the row of the step series.

    Args:
        objective: What the runs minimise.
        optimiser: Of all weights, including those of the objective.
        shape: One of the runs, which share epochs and decay of the learning rate.
        steps: Steps per epoch.
    """

    def __init__(
        self, objective: Objective, optimiser: torch.optim.Optimizer, shape: RunConfig, steps: int
    ) -> None:
        self._objective, self._optimiser, self._decay = objective, optimiser, None
        if shape.learning_rate_decay == "cosine":
            # To 0 after the last step, without restarts (Loshchilov and Hutter, ICLR 2017, eq. 5).
            total = shape.epochs * steps
            self._decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)

    def __call__(self, similarity: Tensor, place: Tensor, shared: Sequence[Tensor] = ()) -> Tensor:
        """Update the weights and return the step's :data:`STEP_COLUMNS`, (R, columns). Arguments
        are as for :class:`Objective`, ``similarity`` with its graph to the weights."""
        loss, used = self._objective(similarity, place, shared)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss.sum())
        self._optimiser.step()
        if self._decay is not None:
            self._decay.step()
        self._objective.project()
        temperature = used.temperature.detach()
        signals = variance(similarity.detach(), temperature).mean(dim=-1)
        columns = [loss[:, None], used.weights, temperature[:, None], signals]
        return torch.cat(columns, dim=-1).detach()

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, except the model's weights."""
        return {
            "objective": self._objective.state(),
            "optimiser": self._optimiser.state_dict(),
            "decay": self._decay.state_dict() if self._decay else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self._objective.restore(state["objective"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._decay is not None:
            self._decay.load_state_dict(state["decay"])
