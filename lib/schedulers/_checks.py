"""Input checks of schedulers and losses; each message names the argument.

Shapes are always checked. Numbers are checked only if reading them costs next to nothing: for a
single run, (B, B), on the CPU, outside compilers and transforms. In a stack, a diverged run must
not stop the others; on a GPU, reading a number makes the step wait for the device
(:class:`lib.losses.ScheduledContrastiveLoss` waits, unless ``check_finite`` is False).
"""

import math
from collections.abc import Callable
from typing import Any

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
    check_is_tensor("similarity", similarity)
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
    if not similarity.is_floating_point() or is_tiny_float(similarity):
        raise ValueError(f"similarity must hold real floats; it is {similarity.dtype}")
    if finite and similarity.dim() == 2:
        check_finite("similarity", similarity)


def check_is_tensor(name: str, value: object) -> None:
    """Raise a ValueError if ``value`` is no tensor, but an array or a list."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor; it is of {type(value)}")


def check_temperature(temperature: Number, leading: tuple[int, ...]) -> Number:
    """Return a temperature that :func:`fitted` has fitted to ``leading``.

    Raises:
        ValueError: It does not fit, or is not positive and finite.
    """
    temperature = fitted("temperature", temperature, leading)
    check_number("temperature", temperature, "positive and finite", lambda tau: tau > 0)
    return temperature


def fitted(name: str, value: object, leading: tuple[int, ...]) -> Number:
    """Return a number as it is, or a tensor that expands to the axes ``leading`` of a stack.

    A tensor or an array with one element is a number, whatever its axes.

    Raises:
        ValueError: ``value`` is neither a number nor a tensor of such axes; the message has
            ``name``.
    """
    if isinstance(value, int | float):
        return value
    tensor = value if isinstance(value, Tensor) else _as_tensor(name, value)
    if tensor.is_complex() or is_tiny_float(tensor):
        raise ValueError(f"{name} must be a real number, not {tensor.dtype}")
    shape = tuple(tensor.shape)
    expands = len(shape) <= len(leading) and all(
        own in (1, given) for own, given in zip(reversed(shape), reversed(leading), strict=False)
    )
    if expands:
        return tensor
    if tensor.numel() == 1:
        return tensor.reshape(())
    raise ValueError(
        f"{name} must be a number, or (...) with the leading axes of the batch, {tuple(leading)}; "
        f"its shape is {shape}"
    )


def is_tiny_float(tensor: Tensor) -> bool:
    """Return whether the numbers are floats of eight bits, which torch stores but does not add."""
    return tensor.is_floating_point() and tensor.itemsize == 1


def _as_tensor(name: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=dtype, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a number or a tensor; it is {value!r}") from None


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


def as_constant(name: str, value: Number | None, batch_shape: tuple[int, ...]) -> Tensor:
    """Return ``value`` as a tensor of ``batch_shape`` on the CPU, in :func:`state_dtype`.

    Raises:
        ValueError: ``value`` is neither a number nor of that shape.
    """
    tensor = _as_tensor(name, value, state_dtype())
    if tensor.numel() == 1:
        tensor = tensor.reshape(())
    try:
        return tensor.expand(batch_shape).clone()
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or of batch_shape={batch_shape}; its shape is "
            f"{tuple(tensor.shape)}"
        ) from None


def state_dtype() -> torch.dtype:
    """Return torch's default type of floats, or float32 if that is a half precision."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


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
