"""Training of a copy of a module for a few steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Module, Rows, StepBlock, to_device
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.train.loop.optimizers import make_optimizer
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)


class DryRun:
    """Copy of a module with an optimizer of its own; the module itself does not change.

    Parameters
    ----------
    module
        Module to copy.
    optimizer
        Options of the optimizer.
    kl_weight
        Weight of the KL term.
    device
        Device of the steps; None for that of the module.
    """

    def __init__(
        self,
        module: Module[Any],
        optimizer: OptimizerOptions,
        *,
        kl_weight: float = 1.0,
        device: torch.device | str | None = None,
    ) -> None:
        target = next(module.parameters()).device if device is None else torch.device(device)
        self.module = copy.deepcopy(module).to(target).train()
        self.optimizer = make_optimizer(self.module, optimizer)
        self.device = target
        self.kl_weight = torch.tensor(kl_weight, device=target)

    def step(self, block: StepBlock, rate: float | None = None) -> Tensor:
        """Make the one step of a block; returns its loss, still on the device."""
        batch = to_device(block.rows.take(block.steps[0]), self.device)
        self.optimizer.zero_grad()
        loss = self.module.loss(batch, self.kl_weight).loss
        loss.backward()
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.optimizer.step()
        return loss.detach()


def cycle_blocks(
    rows: Rows[Any],
    cells: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    drop_last: bool = False,
) -> Iterator[StepBlock]:
    """Blocks of one step, epoch after epoch."""
    blocks: EpochBlocks[Any] = EpochBlocks(rows, cells, batch_size, seed=seed, drop_last=drop_last)
    while True:
        yield from blocks
        blocks.set_epoch(blocks.epoch + 1)
