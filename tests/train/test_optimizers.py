"""Optimizer and schedule from options."""

from __future__ import annotations

import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.model.scvi import SCVIModule
from cellvae.train.optimizers import make_optimizer, make_plateau
from cellvae.train.options import OptimizerOptions, PlateauOptions


def test_the_default_is_adam_as_scvi_tools_sets_it(module: SCVIModule) -> None:
    optimizer = make_optimizer(module, OptimizerOptions())
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (1e-3, 0.01, 1e-6)
    assert len(group["params"]) == len(list(module.parameters()))


def test_frozen_parameters_wait_in_the_optimizer(module: SCVIModule) -> None:
    module.z_encoder.requires_grad_(requires_grad=False)
    optimizer = make_optimizer(module, OptimizerOptions(weight_decay=0.1))
    chosen = optimizer.param_groups[0]["params"]
    assert {id(p) for p in module.parameters()} == {id(p) for p in chosen}
    before = [p.clone() for p in module.z_encoder.parameters()]
    sum(p.sum() for p in module.parameters() if p.requires_grad).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert all(map(torch.equal, before, module.z_encoder.parameters()))
    module.requires_grad_(requires_grad=False)
    with pytest.raises(InvalidOptionError, match="all are frozen"):
        make_optimizer(module, OptimizerOptions())


def test_only_the_decoder_moves_when_asked(module: SCVIModule) -> None:
    chosen = make_optimizer(module, OptimizerOptions(update_only_decoder=True)).param_groups[0][
        "params"
    ]
    assert {id(p) for p in chosen} == {id(p) for p in module.decoder.parameters()}


def test_an_optimizer_of_ones_own_is_made_by_its_creator(module: SCVIModule) -> None:
    options = OptimizerOptions(
        optimizer="Custom", optimizer_creator=lambda p: torch.optim.SGD(p, lr=0.5)
    )
    assert type(make_optimizer(module, options)) is torch.optim.SGD


def test_the_rate_falls_after_its_patience_on_an_absolute_threshold(module: SCVIModule) -> None:
    optimizer = make_optimizer(module, OptimizerOptions(lr=1.0))
    plateau = make_plateau(optimizer, PlateauOptions(factor=0.5, patience=2, threshold=1.0))
    rates = []
    for value in (10.0, 9.5, 9.4, 9.3, 9.2, 5.0):
        plateau.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
