"""A pretended GPU: tensors whose numbers are on the CPU, but whose device is cuda:0.

Torch's rules for mixing devices are enforced, so that a test without a GPU finds a tensor that was
left on the CPU. Kernels, memory, streams and C++ code, which sees a CPU, are not tested.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import DefaultDeviceType

GPU = torch.device("cuda", 0)
ON_GPU = "pretended on cuda:0"
"""The mark of a GPU tensor in a file."""
COPIES = {"copy_", "_to_copy", "_foreach_copy_"}
PACKING = {"_pack_padded_sequence", "_pack_padded_sequence_backward", "_pad_packed_sequence", "gru"}
PACKING |= {"lstm"}
MAY_MIX = COPIES | PACKING
"""Operations that may take tensors of two devices: the lengths of a packed batch are on the CPU."""
ON_HOST = {"_local_scalar_dense", "equal", "is_same_size"}
"""Operations whose result is not a tensor on the device."""
NEED_ONE_DEVICE = {
    "cat", "stack", "index_select", "mm", "bmm", "addmm", "baddbmm", "scatter", "gather",
    "index_add", "index_copy", "index_add_", "index_copy_", "scatter_", "scatter_add_",
    "_fused_adamw_",
}  # fmt: skip
"""Operations that refuse even a CPU tensor without axes."""


class Pretended(torch.Tensor):
    """A tensor whose device is the GPU, with its numbers on the CPU."""

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device="cpu", requires_grad=requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def numpy(self, *arguments, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")

    __array__ = numpy

    def data_ptr(self):
        return self.inner.data_ptr()

    def tolist(self):
        return self.inner.tolist()

    def cuda(self, *arguments, **options):
        return self

    def new_empty(self, *size, **options):
        return torch.empty(*size, **{"dtype": self.dtype, "device": GPU, **options})

    def new_zeros(self, *size, **options):
        return torch.zeros(*size, **{"dtype": self.dtype, "device": GPU, **options})

    def __repr__(self):
        return f"Pretended({self.inner!r})"

    def __deepcopy__(self, memo):
        copied = Pretended(self.inner.detach().clone())
        if isinstance(self, nn.Parameter):
            return nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return on_pretended(function, arguments, options or {})


def is_gpu(device):
    return device is not None and torch.device(device).type == "cuda"


def check_devices(name, arguments, tensors):
    """Raise torch's error if an operation may not mix the devices of its tensors."""
    hosted = [t for t in tensors if not isinstance(t, Pretended)]
    if len(hosted) in (0, len(tensors)) or name in MAY_MIX:
        return
    if name in ("index", "index_put", "index_put_", "_unsafe_index"):
        # The indices of a GPU tensor may be on the CPU; those of a CPU tensor must be.
        values = [t for t in arguments[2:3] if isinstance(t, torch.Tensor)]
        if isinstance(arguments[0], Pretended):
            bad = [t for t in values if not isinstance(t, Pretended) and t.dim()]
        else:
            bad = [t for t in tensors if isinstance(t, Pretended)]
    elif name in NEED_ONE_DEVICE:
        bad = hosted
    else:
        bad = [t for t in hosted if t.dim()]
        in_place = name.endswith("_") and not name.endswith("__")
        if not bad and in_place and not isinstance(tensors[0], Pretended):
            bad = tensors
    if bad:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 "
            f"and cpu! ({name}, {[tuple(t.shape) for t in bad]})"
        )


def on_pretended(function, arguments, options):
    """Run an operation on the numbers; wrap the results that belong on the GPU."""
    name = function.__name__.split(".")[0]
    tensors = [t for t in tree_leaves((arguments, options)) if isinstance(t, torch.Tensor)]
    ours = any(isinstance(t, Pretended) for t in tensors)
    asked = options.get("device")
    to_gpu = is_gpu(asked) if asked is not None else None
    if ours and to_gpu is False and (name.startswith("new_") or name.endswith("_like")):
        to_gpu = True  # Autograd's formulas, in C++, name the device that they see: the CPU.
    if not tensors and to_gpu is False and torch._C._current_graph_task_id() >= 0:
        to_gpu = True
    check_devices(name, arguments, tensors)
    inner = tree_map(lambda t: t.inner if isinstance(t, Pretended) else t, (arguments, options))
    if asked is not None:
        inner[1]["device"] = torch.device("cpu")
    result = function(*inner[0], **inner[1])
    if name == "copy_":
        return arguments[0]
    if name == "_pack_padded_sequence":
        return Pretended(result[0]) if ours else result[0], result[1]
    stays = ours if to_gpu is None else to_gpu
    if name in ON_HOST or not stays:
        return result
    wrapped = tree_map(lambda t: Pretended(t) if isinstance(t, torch.Tensor) else t, result)
    moved = name in ("_to_copy", "lift_fresh") or not ours
    return wrapped if moved else return_and_correct_aliasing(function, arguments, options, wrapped)


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return on_pretended(function, arguments, options or {})


class Moves(TorchFunctionMode):
    """The calls that would need a driver: a bare "cuda", and moves between devices."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        arguments, options = tree_map(_indexed, (tuple(arguments), dict(options or {})))
        if function in (torch.Tensor.to, torch.Tensor.cpu) and isinstance(arguments[0], Pretended):
            return _move(arguments, options, to_cpu=function is torch.Tensor.cpu)
        if function is torch.Tensor.to and any(isinstance(a, Pretended) for a in arguments[1:]):
            dtype = arguments[1].dtype
            return torch.ops.aten._to_copy(arguments[0], device=GPU, dtype=dtype)
        made = function in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and is_gpu(options.get("device")):
            del options["device"]
            if isinstance(arguments[0], torch.Tensor):
                return arguments[0].to(GPU, **options)
            return function(*arguments, **options).to(GPU)
        return function(*arguments, **options)


def _indexed(value):
    bare = isinstance(value, torch.device) and value.type == "cuda" and value.index is None
    return GPU if bare or (isinstance(value, str) and value == "cuda") else value


def _move(arguments, options, *, to_cpu):
    tensor, *others = arguments
    want, dtype = torch.device("cpu") if to_cpu else options.get("device"), options.get("dtype")
    for other in others:
        if isinstance(other, torch.Tensor):
            want, dtype = other.device, other.dtype
        elif isinstance(other, torch.dtype):
            dtype = other
        elif isinstance(other, str | torch.device):
            want = torch.device(other)
    copy = torch.ops.aten._to_copy
    if want is not None and torch.device(want).type == "cpu":
        return copy(tensor, device=torch.device("cpu"), dtype=dtype)
    return tensor if dtype in (None, tensor.dtype) else copy(tensor, dtype=dtype)


def _save(state, file, real=torch.save):
    """Write a state and the device of each tensor."""
    real(tree_map(lambda t: {ON_GPU: t.inner} if isinstance(t, Pretended) else t, state), file)


def _load(file, map_location=None, real=torch.load, **options):
    """Read a state; put each tensor where ``map_location`` says, as torch does."""

    def place(leaf):
        marked = isinstance(leaf, dict)
        tensor = leaf[ON_GPU] if marked else leaf
        if not isinstance(tensor, torch.Tensor):
            return tensor
        where = "cuda:0" if marked else "cpu"
        if callable(map_location):
            answers = patch.object(
                torch.serialization, "default_restore_location", lambda _, at: at
            )
            with answers:
                asked = map_location(tensor.untyped_storage(), where)
            where = asked if isinstance(asked, str) else "cpu"
        elif map_location is not None:
            where = str(map_location)
        return tensor.to(GPU) if is_gpu(where) else tensor

    read = real(file, map_location="cpu", **options)
    return tree_map(place, read, is_leaf=lambda t: isinstance(t, dict) and set(t) == {ON_GPU})


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within this context of this thread, the machine has one GPU."""
    facts = {
        "_lazy_init": lambda: None,
        "get_device_name": lambda *_: "Pretended GPU",
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
    }
    optimiser = torch.optim.Optimizer
    replaces = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for name, fact in facts.items():
            stack.enter_context(patch.object(torch.cuda, name, fact))
        capture = "_accelerator_graph_capture_health_check"
        stack.enter_context(patch.object(optimiser, capture, lambda self: None))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, replaces)
        # Torch keeps the type that it found first, on a machine without a GPU.
        stack.enter_context(patch.object(DefaultDeviceType, "_default_device_type", "cuda"))
        stack.enter_context(patch.object(torch.backends.cudnn, "is_acceptable", lambda _: False))
        stack.enter_context(patch.object(torch, "save", _save))
        stack.enter_context(patch.object(torch, "load", _load))
        stack.enter_context(Dispatch())
        stack.enter_context(Moves())
        yield GPU
