"""Latents and losses of cells, written into a file in the course of a run or at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellvae.contracts import Module, to_device
from cellvae.core.options import check_arguments
from cellvae.core.seeds import isolated_rng
from cellvae.data.batches.read_ahead import iter_read_batches
from cellvae.data.files.streaming_writer import CellWriter, check_new_file
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.callbacks.evaluation.cell_selection import (
    CellSelection,
    check_has_latent,
    isolated_eval_mode,
    require_training_plan,
    select_cells,
)
from cellvae.train.callbacks.evaluation.score_table import check_counts
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan

LATENT = ("latent", "latent_variance")
LOSSES = ("reconstruction_loss", "kl")


class PredictionWriter(pl.Callback):
    """Writes what the model says of cells into an AnnData file, one batch of cells in memory.

    It is written once when the run has ended, with the weights that the model is left with (the
    best, where they were restored), or after every few epochs, with the number of the epoch in
    the name of the file: `latents-epoch=9.h5ad`. A file is there only once it is complete. Where a
    run failed nothing is written. The run itself goes on as it would have.

    Parameters
    ----------
    path
        File that ends in `.h5ad` or `.zarr`.
    quantities
        What is written. `"latent"` and `"latent_variance"`, the mean and variance of the posterior,
        are entries of `obsm`; `"reconstruction_loss"` (of one draw of the latent) and `"kl"` (of
        the local latent variables, with weight one), in nats per cell, are columns of `obs`.
    indices
        Cells of the model: positions, names, `"train"`, `"validation"` or `"test"`; None for all.
    every_n_epochs
        Epochs between two files; None for one file at the end, which needs `train()`. Files of the
        same epoch are replaced, so that a run can be resumed.
    batch_size
        Cells of a batch.
    overwrite
        Whether a file that is there before the run may be replaced.

    Raises
    ------
    InvalidOptionError
        If the file cannot be made or is there already, a quantity is unknown, or a number is below
        1; and when the run starts, if there are no such cells.

    Examples
    --------
    >>> from cellvae.train.callbacks.evaluation.prediction_writer import PredictionWriter
    >>> PredictionWriter("latents.h5ad", indices="validation").quantities
    ('latent',)
    """

    group = Group.CHECKPOINT

    @check_arguments("quantities")
    def __init__(
        self,
        path: str | Path,
        *,
        quantities: Sequence[str] = ("latent",),
        indices: Any = None,
        every_n_epochs: int | None = None,
        batch_size: int = 512,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"every_n_epochs": every_n_epochs, "batch_size": batch_size})
        check_new_file(path, overwrite=overwrite or every_n_epochs is not None)
        check_quantities(quantities)
        self.path = path
        self.quantities = quantities
        self.indices = indices
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.overwrite = overwrite
        self.written: list[str] = []

    @property
    def state_key(self) -> str:
        """Name of the state: several writers may serve one run."""
        return f"{type(self).__qualname__}[{self.path}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the files of an earlier run."""
        self.written = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Select the cells; an error in them is raised before training."""
        plan = require_training_plan(pl_module, self)
        if {*self.quantities} & {*LATENT}:
            check_has_latent(plan.module)
        self.cells_of(plan)

    def on_epoch_complete(self, trainer: pl.Trainer, plan: TrainingPlan) -> None:
        """Write the file of an epoch that is due."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            path = Path(self.path)
            self.write(trainer, plan, path.with_stem(f"{path.stem}-epoch={plan.epoch}"))

    def on_stop(self, trainer: pl.Trainer, plan: TrainingPlan, reason: str) -> None:
        """Write the file of a run that has left a trained model."""
        trained = (
            plan.run.weights_kept and plan.run.n_epochs_done > 0 and plan.run.status != "failed"
        )
        if self.every_n_epochs is None and trained:
            self.write(trainer, plan, Path(self.path))

    def write(self, trainer: pl.Trainer, plan: TrainingPlan, path: Path) -> None:
        """Write one file; the first process does."""
        if not trainer.is_global_zero:
            return
        module = plan.module
        chosen = self.cells_of(plan)
        names = pd.Index(chosen.names(np.arange(len(chosen.indices))))
        with isolated_eval_mode(module, plan.seed), CellWriter(path, names) as file:
            indices = torch.from_numpy(chosen.indices)
            batches = iter_read_batches(chosen.rows, indices, self.batch_size)
            for cells, batch in batches:
                # Draws of one quantity do not depend on which others are requested.
                with isolated_rng(plan.seed, "predictions", cells.start):
                    values = self.values(module, batch)
                file.write(cells, {k: v.float().cpu().numpy() for k, v in values.items()})
        self.written.append(str(path))

    def values(self, module: Module[Any], batch: Any) -> dict[str, Tensor]:
        """Quantities of a batch, each [cells] or [cells, latent]."""
        weight = next(module.parameters())
        batch = cast_floats(to_device(batch, weight.device), weight.dtype)
        found: dict[str, Tensor] = {}
        if {*self.quantities} & {*LOSSES}:
            loss = module.loss(batch, weight.new_ones(()))
            found |= {
                "reconstruction_loss": loss.total_reconstruction,
                "kl": loss.total_kl,
            }
        if {*self.quantities} & {*LATENT}:
            posterior = check_has_latent(module).encode(batch).posterior
            found |= {"latent": posterior.mean, "latent_variance": posterior.variance}
        return {name: found[name] for name in self.quantities}

    def cells_of(self, plan: TrainingPlan) -> CellSelection:
        """Requested cells.

        Raises
        ------
        InvalidOptionError
            If there are none.
        """
        chosen = select_cells(plan, self.indices)
        if not len(chosen.indices):
            raise InvalidOptionError(
                f"Expected at least one cell to write to '{self.path}'; indices="
                f"{self.indices!r} are none. Leave some with train_size, or give other indices."
            )
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Names of the files that the run has written."""
        return {"written": list(self.written)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the names of the files of a resumed run."""
        self.written = list(state_dict["written"])


def cast_floats(batch: Any, dtype: torch.dtype) -> Any:
    """Batch with its real numbers in the type of the weights."""
    return type(batch)(
        *(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in batch)
    )


def check_quantities(quantities: Sequence[str]) -> None:
    """Check that quantities are known, and that there is one.

    Raises
    ------
    InvalidOptionError
        If not.
    """
    known = (*LATENT, *LOSSES)
    if isinstance(quantities, str) or not quantities:
        raise InvalidOptionError(
            f"Expected quantities to be a list of some of {', '.join(known)}; got {quantities!r}."
        )
    for name in quantities:
        if name not in known:
            raise InvalidOptionError(
                f"Expected quantities among {', '.join(known)}; got '{name}'."
                f"{did_you_mean(name, known)}"
            )
