"""What schedulers and losses refuse, and the message that names the argument.

Shapes are checked always, numbers where that costs next to nothing: those of a single run, (B, B),
on the CPU, outside compilers and transforms. In a stack, a run that has diverged must leave its
neighbours alone; each look at a GPU's numbers would make the step wait for it
(:class:`lib.losses.ScheduledContrastiveLoss` takes that look, unless told not to).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Number = float | Tensor
"""A number, or a tensor (...) that holds one for each run of a stack."""


def check_similarity(similarity: Tensor, *, finite: bool = True) -> None:
    """Refuse what no contrastive loss can use.

    Args:
        similarity: (..., B, B).
        finite: Whether to look at the numbers.

    Raises:
        ValueError: ``similarity`` is not (..., B, B), B < 2 (a single pair has no negatives), it
            is not of floats, or a number is not finite.
    """
    if similarity.dim() < 2 or similarity.shape[-1] != similarity.shape[-2]:
        raise ValueError(
            f"similarity must be (..., B, B), one row an image and one column a caption of the "
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
    """Refuse a temperature that nothing can be divided by.

    Raises:
        ValueError: ``temperature`` is not positive and finite.
    """
    check_number("temperature", temperature, "positive and finite", lambda tau: tau > 0)


def check_number(name: str, value: Number, rule: str, good: Callable[[float], bool]) -> None:
    """Refuse a constant, where it is a single number that can be read for next to nothing.

    Raises:
        ValueError: It is not finite, or not ``good``; the message says its name and rule.
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
    """Return a constant of each run of a stack, of ``batch_shape``, in the default type of floats.

    Raises:
        ValueError: It is neither a number nor of that shape.
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
    """Refuse numbers that are not finite, where they can be read for next to nothing.

    Raises:
        ValueError: There are some; the message says how many and where the first is.
    """
    # One sum finds a NaN or an infinity faster than a look at every number; it may overflow.
    if is_readable(values) and not math.isfinite(values.detach().sum().item()):
        refuse_not_finite(name, values)


def refuse_not_finite(name: str, values: Number) -> None:
    """Look at every number, on whatever device, and refuse those that are not finite.

    Raises:
        ValueError: There are some; the message says how many and where the first is.
    """
    bad = (~torch.as_tensor(values).detach().isfinite()).nonzero()
    if len(bad):
        where = f", the first at {bad[0].tolist()}" if bad.shape[1] else ""
        raise ValueError(
            f"{name} holds {len(bad)} numbers that are not finite{where}; "
            "the model has diverged, or its input has"
        )


def is_readable(tensor: Tensor) -> bool:
    """Say whether a number can be read without waiting for a device."""
    return tensor.device.type == "cpu" and not is_traced(tensor)


def is_traced(tensor: Tensor) -> bool:
    """Say whether no number can be read: under a compiler or transform, or in a subclass."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
