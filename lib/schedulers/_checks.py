"""Input checks of schedulers and losses; each message names the argument.

Shapes are always checked. Numbers are checked only if reading them costs next to nothing: for a
single run, (B, B), on the CPU, outside compilers and transforms. In a stack, a diverged run must
not stop the others; on a GPU, reading a number makes the step wait for the device
(:class:`lib.losses.ScheduledContrastiveLoss` waits, unless ``check_finite`` is False).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Number = float | Tensor
"""A number, or a tensor (...) with one number per run of a stack."""


def check_similarity(similarity: Tensor, *, finite: bool = True) -> None:
    """Refuse similarities that no contrastive loss can use.

    Args:
        similarity: (..., B, B).
        finite: Whether to check that the numbers are finite.

    Raises:
        ValueError: ``similarity`` is not (..., B, B) of floats, B < 2 (a single pair has no
            negatives), or a number is not finite.
    """
    if similarity.dim() < 2 or similarity.shape[-1] != similarity.shape[-2]:
        raise ValueError(
            f"similarity must be (..., B, B), one row per image and one column per caption of the "
            f"same B pairs; its shape is {tuple(similarity.shape)}"
        )
    if similarity.shape[-1] < 2:
        raise ValueError(
            "similarity holds a single pair: with no negatives its loss is a constant 0 and no "
            "signal is defined; use batches of at least 2 pairs"
        )
    if not similarity.is_floating_point():
        raise ValueError(f"similarity must hold real floats; it is {similarity.dtype}")
    if finite and similarity.dim() == 2:
        check_finite("similarity", similarity)


def check_temperature(temperature: Number) -> None:
    """Raise a ValueError if ``temperature`` is not positive and finite."""
    check_number("temperature", temperature, "positive and finite", lambda tau: tau > 0)


def check_number(name: str, value: Number, rule: str, good: Callable[[float], bool]) -> None:
    """Raise a ValueError with ``name`` and ``rule`` if ``value`` is not finite or not ``good``.

    A tensor is checked only if it is a single number that can be read for next to nothing.
    """
    if torch.compiler.is_compiling():
        return
    if isinstance(value, Tensor):
        if value.dim() or not is_readable(value):
            return
        value = value.item()
    if not (math.isfinite(value) and good(value)):
        raise ValueError(f"{name} must be {rule}; it is {value}")


def as_constant(name: str, value: Number, batch_shape: tuple[int, ...]) -> Tensor:
    """Return ``value`` as a tensor of ``batch_shape`` in torch's default type of floats.

    Raises:
        ValueError: ``value`` is neither a number nor of that shape.
    """
    tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
    try:
        return tensor.expand(batch_shape).clone()
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or of batch_shape={batch_shape}; its shape is "
            f"{tuple(tensor.shape)}"
        ) from None


def check_finite(name: str, values: Tensor) -> None:
    """Raise a ValueError if a number is not finite and can be read for next to nothing."""
    # A sum finds a NaN or an infinity faster than a test of every number; the sum may overflow.
    if is_readable(values) and not math.isfinite(values.detach().sum().item()):
        refuse_not_finite(name, values)


def refuse_not_finite(name: str, values: Number) -> None:
    """Raise a ValueError that counts the numbers that are not finite, on whatever device."""
    bad = (~torch.as_tensor(values).detach().isfinite()).nonzero()
    if len(bad):
        where = f", the first at {bad[0].tolist()}" if bad.shape[1] else ""
        raise ValueError(
            f"{name} holds {len(bad)} numbers that are not finite{where}; "
            "the model has diverged, or its input has"
        )


def is_readable(tensor: Tensor) -> bool:
    """Return whether a number can be read without waiting for a device."""
    return tensor.device.type == "cpu" and not is_traced(tensor)


def is_traced(tensor: Tensor) -> bool:
    """Return whether no number can be read: under a compiler or transform, or in a subclass."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or is_transformed(tensor)
    )


def is_transformed(tensor: Tensor) -> bool:
    """Return whether a tensor lives within a ``torch.func`` transform, and must not outlive it."""
    compiled = torch.compiler.is_compiling()
    return not compiled and torch._C._functorch.is_functorch_wrapped_tensor(tensor)
