"""In an epoch nothing is read from the device before the last step, and little after it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from recorder import (
    HOST_FUNCTIONS,
    line_of_step,
    one_hot_on_device,
    tensors_in,
    why_forbidden,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cellvae.model.scvi import SCVIModule

from conftest import CASES  # isort: skip

pytestmark = pytest.mark.trains


class Reads(TorchDispatchMode):
    """Notes where the host reads a tensor of the device.

    On the device are parameters, buffers and cells of a run, and all that is computed from them;
    scalars that Lightning makes on the CPU are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_device: set[int] = set()
        self.lines: list[str] = []

    def is_on_device(self, tree: Any) -> bool:
        return any(t.untyped_storage()._cdata in self.on_device for t in tensors_in(tree))

    def add(self, tree: Any) -> None:
        self.on_device |= {t.untyped_storage()._cdata for t in tensors_in(tree)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # A new tensor may be where one of the device was.
        made = func.overloadpacket.__name__ in ("lift_fresh", "set_")
        if self.is_on_device((args, kwargs)) and not made:
            if func.namespace == "aten" and why_forbidden(func, args, kwargs):
                self.lines.append(f"{func.overloadpacket.__name__} {line_of_step()}")
            self.add(result)
        else:
            self.on_device -= {t.untyped_storage()._cdata for t in tensors_in(result)}
        return result


class ReadFunctions(TorchFunctionMode):
    """Notes reads that no operator of torch is for."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func is torch.nn.functional.one_hot:
            return one_hot_on_device(*args, **(kwargs or {}))
        reads = ("data_ptr", "numpy", "__array__", "tolist", "cpu", "pin_memory")
        if name in HOST_FUNCTIONS and name in reads and self.reads.is_on_device(args):
            self.reads.lines.append(f"{name} {line_of_step()}")
        return func(*args, **(kwargs or {}))


class Watch(pl.Callback):
    """Counts the reads of every epoch: during its steps, and from its last step to its end."""

    supports_blocks = True

    def __init__(self) -> None:
        self.in_steps: list[list[str]] = []
        self.at_end: list[list[str]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.reads = Reads()
        self.functions = ReadFunctions(self.reads)
        self.reads.add([*pl_module.parameters(), *pl_module.buffers()])
        columns = pl_module.blocks[0].rows
        for column in getattr(columns, "columns", {}).values():
            self.reads.add(list(vars(column).values()))
        self.reads.__enter__()
        self.functions.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_last_batch:
            self.in_steps.append(self.reads.lines)
            self.reads.lines = []

    def on_epoch_complete(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.functions.__exit__(None, None, None)
        self.reads.__exit__(None, None, None)
        self.at_end.append(self.reads.lines)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_the_host_waits_for_no_step(case: Any, emulated: None) -> None:
    watch = Watch()
    model = case.made()
    model.train(
        max_epochs=3,
        batch_size=16,
        seed=0,
        accelerator="cpu",
        steps_per_block=2,
        capture_steps=False,
        enable_progress_bar=False,
        callbacks=[watch],
    )
    reads = ["tolist nan_guard.py", "tolist epoch_metrics.py"]
    assert [[line.split(":")[0] for line in lines] for lines in watch.at_end] == [reads] * 3
    if case.name == "AmortizedLDA":
        # Pyro reads the loss of every step, so that it says that it cannot be captured.
        assert not model.module.cuda_graph_safe and all(watch.in_steps)
        return
    assert watch.in_steps == [[], [], []]


def test_a_read_within_a_step_is_noticed(emulated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = SCVIModule.loss

    def reading(self: Any, batch: Any, weight: Any) -> Any:
        found = loss(self, batch, weight)
        if self.training and bool(found.loss > 0):
            found.loss.detach().cpu()
        return found

    monkeypatch.setattr(SCVIModule, "loss", reading)
    watch = Watch()
    CASES[0].made().train(
        max_epochs=1,
        batch_size=43,
        accelerator="cpu",
        steps_per_block=2,
        capture_steps=False,
        enable_progress_bar=False,
        callbacks=[watch],
    )
    (lines,) = watch.in_steps
    assert [line.split(":")[0] for line in lines] == [
        *("_local_scalar_dense test_host_reads.py", "cpu test_host_reads.py")
    ] * 2
