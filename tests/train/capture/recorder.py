"""Recorder of the operations of a step, which replays them as a CUDA graph does, on the CPU.

While recording, every operation of ATen is noted with its very tensors: those of the forward and
backward pass, of the optimizer and of callbacks. A replay runs these operations again, without any
Python of the step, and writes into the same memory. As with a graph, numbers of Python are fixed,
the tensors that a step allocates belong to the recording, and recording itself changes nothing.
What a capture on a device forbids raises `CaptureError`, with operator and line.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

READS = {"equal", "is_nonzero", "allclose", "_local_scalar_dense", "item", "is_same_size_as"}
"""Operators whose result is a number on the host."""
HOST_TO_DEVICE = {"lift_fresh", "lift", "_pin_memory", "_nested_tensor_from_tensor_list"}
"""Operators by which a value of the host becomes a tensor."""
NEW_MEMORY = {"set_", "resize_", "resize_as_", "resize"}
"""Operators that change where a tensor is."""
HOST_FUNCTIONS = {
    "data_ptr",
    "numpy",
    "__array__",
    "tolist",
    "item",
    "cpu",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "pin_memory",
}
"""Methods of tensors that the host reads values or addresses with."""
FACTORIES = (
    *(torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.zeros, torch.ones, torch.full),
    *(torch.empty, torch.empty_strided, torch.arange, torch.linspace, torch.logspace, torch.eye),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
    *(torch.tril_indices, torch.triu_indices),
)
"""Functions that make a tensor on the CPU unless a device is given."""
NO_KERNEL = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}
"""Operators that allocate memory, without a kernel."""


class CaptureError(RuntimeError):
    """A step does something that a CUDA graph cannot capture."""


@dataclass(kw_only=True)
class Operation:
    """One operation of a step.

    Parameters
    ----------
    operator
        Operator of ATen.
    args, kwargs
        What it was called with; tensors share the memory of the step's.
    outputs
        Leaves of its result; None for those that are views or were written in place.
    line
        Where the step called it.
    """

    operator: Any
    args: Any
    kwargs: Any
    outputs: list[Tensor | None]
    line: str

    @property
    def name(self) -> str:
        return self.operator.overloadpacket.__name__

    @property
    def has_kernel(self) -> bool:
        return self.name not in NO_KERNEL

    def run(self) -> None:
        """Run it on the same memory."""
        result = self.operator(*self.args, **self.kwargs)
        if not self.has_kernel:
            return
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for memory, leaf in zip(self.outputs, leaves, strict=True):
            if memory is None:
                continue
            if memory.shape != leaf.shape:
                raise CaptureError(
                    f"{self.operator} has a result of {tuple(leaf.shape)} in a replay, not "
                    f"{tuple(memory.shape)}: {self.line}"
                )
            memory.copy_(leaf)


@dataclass
class Recording:
    """Operations of a step in their order, and the memory that belongs to them."""

    operations: list[Operation] = field(default_factory=list)
    owned: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    n_replays: int = 0

    @property
    def kernels(self) -> list[Operation]:
        """Operations that launch a kernel; a view does not."""
        return [operation for operation in self.operations if operation.has_kernel]

    def spoil(self) -> None:
        """Fill the memory with NaN, so that whoever reads what no operation wrote is noticed."""
        for storage in self.owned.values():
            storage.fill_(255)

    def replay(self) -> None:
        """Run the operations, with new random numbers of the global generator."""
        self.spoil()
        self.n_replays += 1
        with torch.no_grad():
            for operation in self.operations:
                operation.run()


def line_of_step() -> str:
    """File and line of the innermost frame that is neither torch's nor the recorder's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        ours = name == __file__ or function.startswith("__torch_")
        if not ours and "/torch/" not in name and not name.startswith("<"):
            return f"{name.rsplit('/', 1)[-1]}:{frame.f_lineno} in {function}"
        frame = frame.f_back
    return "?"


def tensors_in(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def alias(tree: Any) -> Any:
    """The same arguments, with tensors that share memory but have no gradient."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def one_hot_on_device(codes: Tensor, num_classes: int = -1) -> Tensor:
    """One-hot encoding as torch makes it on CUDA, where it checks no codes."""
    if num_classes == -1:
        raise CaptureError(f"one_hot without num_classes reads its codes: {line_of_step()}")
    shape = (*codes.shape, num_classes)
    zeros = torch.zeros(shape, dtype=torch.int64, device=codes.device)
    return zeros.scatter_(-1, codes.unsqueeze(-1), 1)


class HostFunctions(TorchFunctionMode):
    """Refuses functions by which the host reads values, or makes tensors in its own memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is torch.nn.functional.one_hot:
            with self:
                return one_hot_on_device(*args, **kwargs)
        if name in HOST_FUNCTIONS:
            raise CaptureError(f"the host reads a tensor by {name}: {line_of_step()}")
        if func is torch.from_numpy or (func in FACTORIES and kwargs.get("device") is None):
            raise CaptureError(f"{name} makes a tensor on the CPU: {line_of_step()}")
        return func(*args, **kwargs)


def why_forbidden(func: Any, args: Sequence[Any], kwargs: Any) -> str:
    """Why a capture forbids an operation; empty if it does not."""
    name = func.overloadpacket.__name__
    if name in READS or torch.Tag.data_dependent_output in func.tags:
        return "the host reads its result"
    indexes = name in ("index", "index_put", "index_put_", "_index_put_impl_")
    if torch.Tag.dynamic_output_shape in func.tags and not indexes:
        return "the shape of its result depends on the data"
    if indexes and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
        return "a mask is used as an index, so the shape depends on the data"
    if name in HOST_TO_DEVICE:
        return "a value of the host becomes a tensor"
    if name in NEW_MEMORY:
        return "it changes where a tensor is"
    if name in ("randperm", "multinomial"):
        return "it waits for the device"
    if any(isinstance(each, torch.Generator) for each in tree_leaves((args, kwargs))):
        return "its random numbers are of a generator that the graph does not know"
    devices = {tensor.device for tensor in tensors_in((args, kwargs))}
    given = kwargs.get("device")
    if len(devices | ({torch.device(given)} if given is not None else set())) > 1:
        return "it copies between devices"
    return ""


class OperationMode(TorchDispatchMode):
    """Notes the operations of a step, and refuses those that a capture forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording()
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        line = line_of_step()
        reason = why_forbidden(func, args, kwargs)
        if reason:
            raise CaptureError(f"{func}: {reason}: {line}")
        inputs = {tensor.untyped_storage()._cdata for tensor in tensors_in((args, kwargs))}
        for tensor in tensors_in((args, kwargs)):
            self.keep_value(tensor.untyped_storage())
        result = func(*args, **kwargs)
        outputs: list[Tensor | None] = []
        for leaf in tensors_in(result):
            storage = leaf.untyped_storage()
            if storage._cdata in inputs:
                outputs.append(None)
                continue
            self.recording.owned[storage._cdata] = storage
            outputs.append(leaf.detach())
        is_view = outputs and not any(o is not None for o in outputs)
        if func._schema.is_mutable or not is_view:
            self.recording.operations.append(
                Operation(
                    operator=func,
                    args=alias(args),
                    kwargs=alias(kwargs),
                    outputs=outputs,
                    line=line,
                )
            )
        return result

    def keep_value(self, storage: torch.UntypedStorage) -> None:
        """Copy memory that is older than the recording, since recording changes nothing."""
        key = storage._cdata
        if key not in self.recording.owned and key not in self.before:
            self.before[key] = (storage, storage.clone())

    def restore(self) -> None:
        """Bring back all older memory."""
        for storage, copy in self.before.values():
            storage.copy_(copy)


def host_randomness() -> tuple[Any, ...]:
    """State of the generators of the host, and the seed of torch's."""
    _, keys, position, *rest = np.random.get_state()
    return random.getstate(), keys.tolist(), position, rest, torch.initial_seed()


def record_operations(step: Callable[[], None]) -> Recording:
    """Record a step, which changes nothing beside the attributes that its Python sets.

    Raises
    ------
    CaptureError
        If the step does something that a CUDA graph cannot capture.
    """
    mode = OperationMode()
    random_state, host = torch.get_rng_state(), host_randomness()
    try:
        with mode, HostFunctions():
            step()
        host_after = host_randomness()
    finally:
        with torch.no_grad():
            mode.restore()
        torch.set_rng_state(random_state)
    if host_after != host:
        raise CaptureError("the step draws random numbers of the host, or seeds a generator")
    mode.recording.spoil()
    return mode.recording


class Recorder:
    """Capturer of steps by a recording, in place of one by CUDA graphs."""

    made: list[Recorder] = []

    def __init__(self, device: Any = None) -> None:
        self.n_warmed_up = 0
        self.recordings: list[Recording] = []
        Recorder.made.append(self)

    @property
    def n_recorded(self) -> int:
        return len(self.recordings)

    @property
    def n_replayed(self) -> int:
        return sum(recording.n_replays for recording in self.recordings)

    def warm_up(self, step: Callable[[], None]) -> None:
        self.n_warmed_up += 1
        step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        recording = record_operations(step)
        self.recordings.append(recording)
        return recording.replay
