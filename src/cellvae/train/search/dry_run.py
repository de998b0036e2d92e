"""Training of a copy of a module for a few steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Loss, Module, Rows, StepBlock, to_device
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.mixing import plan_order
from cellvae.train.loop.steps.step_choice import make_step
from cellvae.train.options.adversarial_options import AdversarialOptions
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
    adversarial
        Options of an adversarial classifier, whose losses have full weight by default.
    seed
        Seed of the classifier.
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
        adversarial: AdversarialOptions | None = None,
        seed: int = 0,
        kl_weight: float = 1.0,
        device: torch.device | str | None = None,
    ) -> None:
        target = next(module.parameters()).device if device is None else torch.device(device)
        self.module = copy.deepcopy(module).to(target).train()
        options = adversarial or AdversarialOptions()
        scale = 1.0 if options.scale == "auto" else options.scale
        self.trained = make_step(self.module, replace(options, scale=scale), seed=seed)
        self.optimizer = self.trained.make_optimizers(self.module, optimizer)[0]
        self.device = target
        self.kl_weight = torch.tensor(kl_weight, device=target)

    def step(self, block: StepBlock, rate: float | None = None) -> Tensor:
        """Make the one step of a block; returns its loss, still on the device."""
        batch = to_device(block.rows.take(block.steps[0]), self.device)
        loss = self.trained.update(batch, self.kl_weight, self.optimizer, RateHooks(rate))
        return loss.loss.detach()


@final
class RateHooks:
    """Hooks that set the learning rate of a step.

    Parameters
    ----------
    rate
        Learning rate; None for that of the optimizer.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate

    def before_backward(self, loss: Loss) -> None:
        """Nothing is done."""

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate."""
        if self.rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.rate


def cycle_blocks(
    rows: Rows[Any],
    cells: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    drop_last: bool = False,
) -> Iterator[StepBlock]:
    """Blocks of one step, epoch after epoch."""
    blocks: EpochBlocks[Any] = EpochBlocks(
        rows,
        cells,
        batch_size,
        seed=seed,
        drop_last=drop_last,
        run_order=plan_order(rows, cells, batch_size),
    )
    while True:
        yield from blocks
        blocks.set_epoch(blocks.epoch + 1)
