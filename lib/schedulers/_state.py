"""The state of a scheduler, or of any module that is called alike: what its buffers hold."""

from itertools import chain

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""Copies of buffers by name."""


def copy_state(module: nn.Module) -> State:
    """Return copies of the module's buffers; constants, which are not saved, are no state."""
    constants = module._non_persistent_buffers_set
    return {
        name: buffer.clone() for name, buffer in module.named_buffers() if name not in constants
    }


@torch.no_grad()
def put_back(module: nn.Module, state: State, where: Tensor | None = None) -> None:
    """Write a copied state into the module's buffers; with ``where`` (...), only for the runs of
    which it is true (a buffer that a stack shares, if it is true of all)."""
    for name, buffer in module.named_buffers():
        if name not in state:
            continue
        old = state[name]
        if where is not None:
            shared = buffer.shape[: where.dim()] != where.shape
            chosen = where.all() if shared else where
            old = torch.where(chosen[(..., *[None] * (buffer.dim() - chosen.dim()))], old, buffer)
        buffer.copy_(old)


def follow(module: nn.Module, device: torch.device) -> None:
    """Move a module to the device of the numbers that it is called with, if it is elsewhere.

    A trainer moves its model; nobody moves a loss that is not part of the model.
    """
    first = next(chain(module.buffers(), module.parameters()), None)
    if first is not None and first.device != device:
        module.to(device)
