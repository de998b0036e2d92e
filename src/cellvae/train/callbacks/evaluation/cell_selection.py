"""Cells that a callback evaluates during a run, and their latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from cellvae.contracts import GenerativeModule, Module, Rows, to_device
from cellvae.core.eval_mode import eval_mode
from cellvae.core.seeds import isolated_rng
from cellvae.core.selection import flatten_selection
from cellvae.data.batches.indexing import cell_indices
from cellvae.data.batches.read_ahead import iter_read_batches
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.loop.model_files import ModelFiles
from cellvae.train.loop.step_loop import NON_DEFAULT_DTYPES
from cellvae.train.loop.training_plan import TrainingPlan


@runtime_checkable
class CellTable(Protocol):
    """The part of the interface of AnnData that is used here."""

    n_obs: Any
    obs: Any
    obs_names: Any


@dataclass(frozen=True, kw_only=True)
class NamedCells:
    """Names of the model's own cells, for those who point at cells by name."""

    n_obs: int
    obs_names: pd.Index


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSelection:
    """Some cells of the model or of another AnnData."""

    rows: Rows[Any]
    indices: NDArray[np.int64]
    """Positions of the cells in the rows."""
    files: ModelFiles | None
    adata: Any = None
    """Where they are from; None for the model's own."""

    def column(self, key: str) -> NDArray[np.object_]:
        """Value of `adata.obs[key]` for each of the cells.

        Raises
        ------
        TrainingError
            If the run does not know the columns of its cells.
        """
        if self.files is None:
            raise TrainingError(
                f"This plan does not know the column '{key}' of its cells. Train through "
                "model.train(), or give Plan(files=...)."
            )
        return np.asarray(self.files.column(key, self.adata), dtype=object)[self.indices]

    def names(self, positions: NDArray[np.int64]) -> list[str]:
        """Names of the cells at some positions among these."""
        numbers = self.indices[positions]
        if self.adata is not None:
            return [str(name) for name in self.adata.obs_names[numbers]]
        return [str(n) for n in numbers] if self.files is None else self.files.names(numbers)

    def select(self, positions: NDArray[np.int64]) -> CellSelection:
        """Those of the cells that are at some positions."""
        return replace(self, indices=self.indices[positions])

    def same_table(self, other: CellSelection) -> bool:
        """Whether the numbers of both are positions in the same table."""
        return self.rows is other.rows or (self.adata is not None and self.adata is other.adata)


def require_training_plan(pl_module: pl.LightningModule, callback: pl.Callback) -> TrainingPlan:
    """The module that is trained, as a plan that knows its cells.

    Raises
    ------
    TrainingError
        If it is none.
    """
    if not isinstance(pl_module, TrainingPlan) or pl_module.rows is None:
        raise TrainingError(
            f"{type(callback).__name__} looks at the cells of a cellvae Plan; got "
            f"{type(pl_module).__name__} without cells. Train through model.train(), or give "
            "Plan(rows=...)."
        )
    return pl_module


def select_cells(plan: TrainingPlan, cells: Any, adata: Any = None) -> CellSelection:
    """Cells that a user points at.

    Parameters
    ----------
    plan
        Training plan of the run that evaluates them.
    cells
        None for all; `"train"`, `"validation"` or `"test"` for a part of the model's own; numbers,
        a mask, a slice, or names; or an AnnData.
    adata
        AnnData that the cells are in; None for that of the model.
    """
    if isinstance(cells, CellTable):
        cells, adata = None, cells
    if adata is not None:
        if plan.files is None:
            raise TrainingError(
                "This plan cannot read another AnnData. Train through model.train(), or give "
                "Plan(files=...)."
            )
        numbers = cell_indices(cells, adata)
        return CellSelection(
            rows=plan.files.read(adata), indices=numbers, files=plan.files, adata=adata
        )
    assert plan.rows is not None
    parts: dict[str, NDArray[np.int64]] = {}
    if plan.split is not None:
        parts = {
            "train": plan.split.train,
            "validation": plan.split.validation,
            "test": plan.split.test,
        }
    if isinstance(cells, str) and cells in parts:
        numbers = parts[cells]
    else:
        numbers = cell_indices(cells, index_model_cells(plan, cells))
    return CellSelection(rows=plan.rows, indices=numbers, files=plan.files)


def index_model_cells(plan: TrainingPlan, cells: Any) -> Any:
    """What positions of the model's own cells are found in: their names, or their number."""
    assert plan.rows is not None
    n_cells = len(plan.rows)
    if plan.files is None or cells is None or isinstance(cells, slice):
        return n_cells
    # A mask of pandas has names, too.
    if not isinstance(cells, pd.Series) and flatten_selection(cells).dtype.kind not in "UOT":
        return n_cells
    names = plan.files.names(np.arange(n_cells, dtype=np.int64))
    return NamedCells(n_obs=n_cells, obs_names=pd.Index(names))


def subsample(positions: NDArray[np.int64], n: int | None, seed: int) -> NDArray[np.int64]:
    """At most `n` of the positions, drawn by a seed, in their order; None for all."""
    if n is None or len(positions) <= n:
        return positions
    chosen = np.random.default_rng(seed).choice(len(positions), n, replace=False)
    return positions[np.sort(chosen)]


@contextmanager
def isolated_eval_mode(module: nn.Module, seed: int) -> Iterator[None]:
    """Context in eval mode, without gradients and with its own random numbers.

    Each part of the module is afterwards in the mode that it was in, and torch's generators too.
    """
    with eval_mode(module), torch.no_grad(), isolated_rng(seed, "evaluation"):
        yield


def cast_batch(plan: TrainingPlan, batch: Any) -> Any:
    """Batch on the device and in the precision of the weights."""
    batch = to_device(batch, plan.device)
    if str(plan.trainer.precision) in NON_DEFAULT_DTYPES:
        batch = plan.trainer.precision_plugin.convert_input(batch)
    return batch


def encode_latents(
    plan: TrainingPlan, cells: CellSelection, batch_size: int
) -> NDArray[np.float64]:
    """Posterior mean of the latent of each cell, [cells, latent]; the run is left undisturbed."""
    means = []
    module = check_has_latent(plan.module)
    with isolated_eval_mode(plan.module, plan.seed):
        indices = torch.from_numpy(cells.indices)
        for _, batch in iter_read_batches(cells.rows, indices, batch_size):
            means.append(module.encode(cast_batch(plan, batch)).posterior.mean.double())
        return torch.cat(means).cpu().numpy()


def check_has_latent(module: Module[Any]) -> GenerativeModule[Any]:
    """Network of a model that has a latent representation.

    Raises
    ------
    InvalidOptionError
        If it is another, such as that of a classifier.
    """
    if not isinstance(module, GenerativeModule):
        raise InvalidOptionError(
            "Expected a model with a latent representation for this callback; the network is a "
            f"{type(module).__name__}. Leave the callback out."
        )
    return module
