"""The state of a scheduler, or of any module that is called alike: what its buffers hold."""

from collections.abc import Callable
from itertools import chain
from typing import Any

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


def in_single(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the conversion ``fn`` (of ``Module._apply``) without conversions to half precision.

    A moving average in half precision would stop moving, and β = 0.999 would become 1.
    """

    def converted(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        half = result.dtype in (torch.float16, torch.bfloat16)
        return tensor.to(result.device) if half and tensor.dtype != result.dtype else result

    return converted


class KeptInSingle(nn.Module):
    """A module whose numbers stay in single precision (or double), whatever it is converted to.

    A state that was saved in half precision is loaded in single precision, too.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(in_single(fn), recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # With assign=True, torch puts the loaded tensor in the place of the buffer.
        for name in (name for name in list(state_dict) if name.startswith(prefix)):
            value: object = state_dict[name]
            if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
                state_dict[name] = value.float()
        super()._load_from_state_dict(state_dict, prefix, *args)
