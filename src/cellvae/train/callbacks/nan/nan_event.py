"""Events of values that are not finite: which parameter, part of the network and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from cellvae.contracts import to_device
from cellvae.core.eval_mode import eval_mode
from cellvae.core.seeds import isolated_rng
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.errors import quote_names
from cellvae.kernels import all_finite
from cellvae.train.loop.training_plan import TrainingPlan

# Cells and parameters that are named at most.
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class NaNEvent:
    """The first loss, gradient or weight of a run that was not finite.

    Parameters
    ----------
    quantity
        `"loss"`, `"gradient"` or `"weight"`.
    epoch, batch
        When; the batch is counted from 0 within the epoch.
    parameters
        Parameters whose gradient or value was not finite.
    part
        First module of the network whose output was not finite.
    cells
        First cells whose own loss is not finite, by name where names are known.
    """

    quantity: str
    epoch: int
    batch: int
    parameters: tuple[str, ...] = ()
    part: str | None = None
    cells: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Values for a file."""
        values = asdict(self)
        return values | {"parameters": list(self.parameters), "cells": list(self.cells)}

    def __str__(self) -> str:
        what = {
            "loss": "the training loss was not finite",
            "gradient": "a gradient was not finite",
            "weight": "a weight was not finite",
        }[self.quantity]
        text = f"{what} in epoch {self.epoch} (batch {self.batch})"
        if self.parameters:
            text += f", parameters {quote_names(self.parameters, MAX_NAMED)}"
        if self.cells:
            text += f", cells {quote_names(self.cells, MAX_NAMED)}"
        if self.part:
            text += f", first in {self.part}"
        return text


def find_nan_cause(
    plan: TrainingPlan, loader: Any, batch: int, *, from_loss: bool, gradients: Sequence[str]
) -> NaNEvent:
    """Event of a batch; its cells are found by computing their losses again."""
    weights = [n for n, p in plan.module.named_parameters() if not torch.isfinite(p).all()]
    quantity = "weight" if weights else "loss" if from_loss else "gradient"
    cells, part = offending_cells(plan, loader, batch)
    return NaNEvent(
        quantity=quantity,
        epoch=plan.epoch,
        batch=batch,
        parameters=tuple(weights or ([] if from_loss else gradients))[: 4 * MAX_NAMED],
        part=part,
        cells=cells,
    )


def offending_cells(
    plan: TrainingPlan, loader: Any, batch: int
) -> tuple[tuple[str, ...], str | None]:
    """Cells of a batch whose own loss is not finite, and the first module with such an output.

    Computed in eval mode, where cells do not affect each other.
    """
    if not isinstance(loader, EpochBlocks):
        return (), None
    steps = [cells for block in loader.steps_of_epoch() for cells in block]
    if batch >= len(steps):
        return (), None
    indices = steps[batch]
    found: list[str] = []
    hooks = [
        part.register_forward_hook(nan_output_hook(name, found))
        for name, part in plan.module.named_modules()
        if name and not list(part.children())
    ]
    try:
        with eval_mode(plan.module), torch.no_grad(), isolated_rng(plan.seed, "nan"):
            loss = plan.module.loss(
                to_device(loader.rows.take(indices), plan.device), plan.kl_weight
            )
    except (ValueError, RuntimeError):
        return (), found[0] if found else None
    finally:
        for hook in hooks:
            hook.remove()
    bad = ~torch.isfinite(loss.total_reconstruction + loss.total_kl).cpu()
    wrong = indices[bad.nonzero().reshape(-1)][: 4 * MAX_NAMED].numpy()
    names = plan.files.names(wrong) if plan.files is not None else [str(n) for n in wrong]
    return tuple(names), found[0] if found else None


def nan_output_hook(name: str, found: list[str]) -> Any:
    """Forward hook that appends the name of a module whose output is not finite."""

    def hook(part: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(name)

    return hook


def weights_are_finite(module: nn.Module) -> bool:
    """Whether all weights and buffers are finite; reads from the device once."""
    floats = float_tensors(module)
    return not floats or all_finite(floats)


def float_tensors(module: nn.Module) -> list[Tensor]:
    """Weights and buffers that could be infinite or NaN."""
    return [t for t in module.state_dict().values() if t.is_floating_point() and t.numel()]


def stop_run(trainer: pl.Trainer, pl_module: pl.LightningModule, event: NaNEvent) -> None:
    """Stop the run after this batch, because of an event."""
    if isinstance(pl_module, TrainingPlan):
        pl_module.run.note_nan(str(event))
    trainer.should_stop = True
