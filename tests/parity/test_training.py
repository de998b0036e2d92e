"""Twenty steps of training, beside those of scvi-tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.testing import assert_allclose
from torch import Tensor

from cellvae.model.scvi import SCVIModule
from cellvae.train.loop.optimizers import make_optimizer
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)

Draw = Callable[[Tensor, Tensor], None]


def trained(run: Any, draw_from: Draw) -> tuple[SCVIModule, Tensor]:
    """Network after the cells, noise and KL weights of a run, and the loss of each step."""
    module = run.module().train()
    optimizer = make_optimizer(module, OptimizerOptions())
    n_steps = len(run.values["cells"])
    warmup = KLWarmup(n_epochs=None, n_steps=n_steps, minimum=0.0, maximum=1.0)
    losses = []
    for step, cells in enumerate(run.values["cells"]):
        draw_from(run.values["noise_z"][step], run.values["noise_library"][step])
        loss = module.loss(run.batch(cells), torch.tensor(warmup.weight_at(0, step))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return module, torch.stack(losses)


def test_optimizer_is_that_of_scvi_tools(training_run: Any) -> None:
    optimizer = make_optimizer(training_run.module(), OptimizerOptions())
    kind, theirs = training_run.about["optimizer"]
    assert type(optimizer).__name__ == kind
    ours = {**optimizer.defaults, "betas": list(optimizer.defaults["betas"])}
    assert {option: ours[option] for option in theirs} == theirs


def test_losses_of_all_steps_are_those_of_scvi_tools(training_run: Any, draw_from: Draw) -> None:
    _, losses = trained(training_run, draw_from)
    assert_allclose(losses.numpy(), training_run.values["losses"].numpy(), rtol=1e-3)


def test_weights_after_the_last_step_are_those_of_scvi_tools(
    training_run: Any, draw_from: Draw
) -> None:
    module, _ = trained(training_run, draw_from)
    ours, before = module.state_dict(), training_run.weights()
    theirs = training_run.unpack("state", "shapes")
    idle = training_run.without_effect()
    for name in theirs.keys() - idle:
        # Before a normalisation of the batch, what moves a bias is rounding.
        atol = 1e-3 if name.endswith("0.bias") and "fc_layers" in name else 1e-5
        assert_allclose(ours[name].numpy(), theirs[name].numpy(), 1e-4, atol, err_msg=name)
        assert name.startswith("library_log") or not torch.equal(theirs[name], before[name])
    assert all(torch.equal(theirs[name], before[name]) for name in idle if "running" not in name)


def test_kl_weight_of_every_step_is_that_of_scvi_tools(training_run: Any) -> None:
    theirs = training_run.values["kl_weights"].tolist()
    warmup = KLWarmup(n_epochs=None, n_steps=len(theirs), minimum=0.0, maximum=1.0)
    assert [warmup.weight_at(0, step) for step in range(len(theirs))] == theirs
