"""The gradients of a large batch from micro-batches, for losses that compare all its pairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

Encoder = Callable[[Any], Tensor]
"""Maps a micro-batch of inputs to embeddings (b, ...)."""


def cached_backward(
    loss_of: Callable[..., Tensor],
    encoders: Sequence[Encoder],
    batch: Sequence[Any],
    micro_batch: int,
) -> Tensor:
    """Add the gradients of a whole batch's loss to ``.grad``, encoding micro-batches of it.

    A contrastive loss compares all pairs, so gradients of micro-batches' losses do not add up to
    that of the batch. Here every micro-batch is encoded twice: first without a graph, for the loss
    and its gradient with respect to all embeddings; then with the graph, to pass that gradient on.
    Memory is that of one micro-batch and of all embeddings; time is that of one more forward pass.

    The second pass repeats torch's random numbers, as of dropout, and leaves buffers of modules as
    the first one did. Layers that mix the rows of a batch, such as BatchNorm in training mode, mix
    those of a micro-batch. ``loss_of`` is called once, so that a scheduler takes one step. An
    encoder with ``no_sync``, as of ``DistributedDataParallel``, synchronises once.

    Args:
        loss_of: Maps one tensor of embeddings (B, ...) per encoder to the loss, (). Its parameters,
            such as a learned temperature, get their gradients as usual. To scale the loss for half
            precision, scale it here: ``lambda *both: scaler.scale(loss_of(*both))``.
        encoders: One per input; each maps a micro-batch to embeddings (b, ...).
        batch: One input per encoder: a tensor (B, ...), a list of B samples, or a mapping or tuple
            of such inputs side by side.
        micro_batch: b, the number of rows that are encoded at once.

    Returns:
        (): the loss, detached.

    Raises:
        ValueError: ``micro_batch`` is not positive, ``encoders`` and ``batch`` do not match, or an
            encoder does not return one row per row of its input.

    Source:
        Gao et al. (2021), GradCache.

    >>> from lib.losses import ScheduledContrastiveLoss
    >>> image_head, text_head = nn.Linear(3, 2), nn.Linear(4, 2)
    >>> inputs = torch.randn(8, 3), torch.randn(8, 4)
    >>> loss = cached_backward(ScheduledContrastiveLoss(), (image_head, text_head), inputs, 2)
    >>> loss > 0, image_head.weight.grad.shape
    (tensor(True), torch.Size([2, 3]))
    """
    if not isinstance(micro_batch, int) or micro_batch < 1:
        raise ValueError(f"micro_batch must be a whole number from 1 on; it is {micro_batch}")
    if not torch.is_grad_enabled():
        raise ValueError("cached_backward computes gradients: call it outside torch.no_grad")
    if len(encoders) != len(batch):
        raise ValueError(f"batch holds {len(batch)} inputs for {len(encoders)} encoders")
    counts = [_count(inputs) for inputs in batch]
    if len(set(counts)) != 1 or not counts[0]:
        raise ValueError(
            f"all inputs of batch must have the same number of rows; they have {counts}"
        )
    starts = range(0, counts[0], micro_batch)
    parts = [[_cut(inputs, at, at + micro_batch) for at in starts] for inputs in batch]
    states: list[list[_RandomState]] = [[] for _ in encoders]
    embeddings = []
    for encoder, micro_batches, before in zip(encoders, parts, states, strict=True):
        encoded = []
        for inputs in micro_batches:
            before.append(_RandomState(encoder, inputs))
            with torch.no_grad():
                encoded.append(_encode(encoder, inputs))
        embeddings.append(torch.cat(encoded).requires_grad_())
    loss = loss_of(*embeddings)
    loss.backward()  # type: ignore[no-untyped-call]
    with ExitStack() as after:
        for module in {id(m): m for m in map(_module, encoders) if m is not None}.values():
            after.callback(_put_back, module, [buffer.clone() for buffer in module.buffers()])
        for encoder, micro_batches, before, whole in zip(
            encoders, parts, states, embeddings, strict=True
        ):
            if whole.grad is None:
                continue
            gradients = torch.split(whole.grad, micro_batch)
            for part, (inputs, gradient) in enumerate(zip(micro_batches, gradients, strict=True)):
                last = part == len(micro_batches) - 1
                unsynchronised = nullcontext if last else getattr(encoder, "no_sync", nullcontext)
                with before[part].repeated(), unsynchronised():
                    again = _encode(encoder, inputs)
                    if not again.requires_grad:  # A frozen encoder.
                        break
                    again.backward(gradient)  # type: ignore[no-untyped-call]
    return loss.detach()


class _RandomState:
    """The state of torch's random numbers, on the CPU and on the devices of an encoder."""

    def __init__(self, encoder: Encoder, inputs: Any) -> None:
        module = _module(encoder)
        self.host = torch.get_rng_state()
        parameters = [] if module is None else list(module.parameters())[:1]
        self.devices, self.states = get_device_states(inputs, parameters)

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Start from this state; afterwards, put back the state that was met."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.host)
            set_device_states(self.devices, self.states)
            yield


def _encode(encoder: Encoder, inputs: Any) -> Tensor:
    encoded = encoder(inputs)
    rows = _count(inputs)
    if not isinstance(encoded, Tensor) or encoded.shape[:1] != (rows,):
        found = tuple(encoded.shape) if isinstance(encoded, Tensor) else type(encoded).__name__
        raise ValueError(
            f"an encoder must return embeddings (b, ...), here of {rows} rows; it returned {found}"
        )
    return encoded


def _module(encoder: Encoder) -> nn.Module | None:
    """Return the module whose call, or whose method, an encoder is."""
    owner = getattr(encoder, "__self__", encoder)
    return owner if isinstance(owner, nn.Module) else None


@torch.no_grad()
def _put_back(module: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, old in zip(module.buffers(), buffers, strict=True):
        buffer.copy_(old)


def _beside(inputs: Any) -> list[Any] | None:
    """Return the inputs of a mapping or a tuple; None for one input."""
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else None


def _count(inputs: Any) -> int:
    """Return the number of rows of an input; 0 if inputs side by side have several."""
    beside = _beside(inputs)
    counts = {len(inputs)} if beside is None else {_count(each) for each in beside}
    return counts.pop() if len(counts) == 1 else 0


def _cut(inputs: Any, start: int, stop: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _cut(each, start, stop) for name, each in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_cut(each, start, stop) for each in inputs)
    return inputs[start:stop]
