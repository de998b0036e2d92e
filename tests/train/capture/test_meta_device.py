"""A step touches tensors of its device alone: all of it runs on the device `meta`.

That device has shapes but no values. Whoever reads one fails there, as does an operation with a
tensor that was left on the CPU, which a run on the CPU would not notice.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recorder import line_of_step, tensors_in
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cellvae.data.storage.device import move_rows_to_device
from cellvae.train.callbacks.nan.nan_guard import NaNGuard
from cellvae.train.loop import optimizers
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.steps import adversarial_step
from cellvae.train.loop.steps.step_choice import make_step
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.optimizer_options import OptimizerOptions

from conftest import CASES  # isort: skip

META = torch.device("meta")


class OnMeta(TorchDispatchMode):
    """Refuses operations that read or make a tensor elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in((args, kwargs, result)):
            if tensor.device != META:
                raise AssertionError(f"{func} on {tensor.device}: {line_of_step()}")
        return result


class Hooks:
    """Sums of the loss, and the guard against values that are not finite, as in a run."""

    def __init__(self, plan: Any, module: Any, optimizer: Any) -> None:
        self.guard = NaNGuard()
        self.trainer: Any = SimpleNamespace(optimizers=[optimizer], precision="32-true")
        self.plan = plan
        self.guard.on_train_start(self.trainer, plan)
        self.sums = LossSums("train", module.metrics_from_sums, None, module.loss_parts)
        self.sums.only_finite = True

    def before_backward(self, loss: Any) -> None:
        self.sums.accumulate(loss)
        self.guard.on_before_backward(self.trainer, self.plan, loss.loss)

    def before_step(self, optimizer: Any) -> None:
        self.guard.on_before_optimizer_step(self.trainer, self.plan, optimizer)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name != "AmortizedLDA"], ids=lambda case: case.label
)
def test_a_step_uses_nothing_that_is_not_on_its_device(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_optimizer = import_module("torch.optim.optimizer")
    monkeypatch.setattr(torch_optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(adversarial_step, "is_cuda", lambda _: True)
    # The device has no autocasting, which the step of a classifier turns off.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = case.made()
    module = model.module.to(META).train()
    rows = move_rows_to_device(model.rows, META)
    assert rows is not None
    adversarial = AdversarialOptions(classifier=case.training.get("adversarial_classifier"))
    step = make_step(module, adversarial, seed=0)
    step.make_optimizers(module, OptimizerOptions())
    optimizer = optimizers.Adam(module.parameters(), fused=True)
    for own in step.own_optimizers:
        for group in own.param_groups:
            group["fused"] = True
    plan: Any = nn.Module()
    plan.module, plan.device = module, META
    hooks = Hooks(plan, module, optimizer)
    kl_weight = torch.ones((), device=META)
    cells = torch.zeros(16, dtype=torch.int64, device=META)
    with OnMeta():
        for number in range(2):
            hooks.guard.on_step_start(number)
            step.update(rows.take(cells), kl_weight, optimizer, hooks)
            hooks.guard.on_step_end()


def test_a_tensor_of_the_cpu_is_found() -> None:
    on_device, elsewhere = torch.ones(3, device=META), torch.ones(())
    with OnMeta(), pytest.raises(AssertionError, match=r"aten.mul.Tensor on cpu: test_meta_device"):
        on_device * elsewhere
    with OnMeta(), pytest.raises((RuntimeError, AssertionError)):
        on_device.sum().item()
