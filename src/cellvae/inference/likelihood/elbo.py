"""Evidence lower bound and reconstruction error of cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Loss, sum_parts
from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values, write_values
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@overload
def get_elbo(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    batch_size: int | None = ...,
    return_mean: Literal[True] = ...,
) -> np.float64: ...


@overload
def get_elbo(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    batch_size: int | None = ...,
    *,
    return_mean: Literal[False],
) -> np.ndarray: ...


@overload
def get_elbo(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    batch_size: int | None = ...,
    return_mean: bool = ...,
    *,
    out: str | Path,
) -> Path: ...


@check_arguments(only=INTEGERS)
def get_elbo(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    *,
    out: str | Path | None = None,
) -> np.float64 | np.ndarray | Path:
    """Evidence lower bound of cells, from one posterior sample; higher is better.

    The global KL is divided by the number of requested cells. The sign is that of scvi-tools, and
    opposite to that of `history["elbo_validation"]`.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the mean over cells is returned; otherwise one value for each cell.
    out
        New file (`.h5ad` or `.zarr`) that the value of each cell is written to batch by batch,
        whatever `return_mean` is. It holds an AnnData with `obs["elbo"]`.

    Returns
    -------
    Nats per cell: one number (a NumPy scalar), or an array [cells] in the requested order; with
    `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, `batch_size` is below 1, or the file exists.
    OutputError
        If the file cannot be written.
    """
    path = None if out is None else check_new_file(out)
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=True, encoded=True)
    n_cells = len(cell_pass.cells)

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """ELBO of each cell of a batch."""
        loss = batch_loss(module, batch)
        reconstruction = sum_parts({k: v.double() for k, v in loss.reconstruction.items()})
        kl = loss.total_kl.double() + loss.kl_global.double() / n_cells
        return {"elbo": -(reconstruction + kl)}

    if path is not None:
        return write_values(model, adata, cell_pass, values_of, path)
    elbo = collect_values(model, cell_pass, values_of)["elbo"]
    return np.float64(elbo.mean()) if return_mean else elbo


@check_arguments(only=INTEGERS)
def get_reconstruction_error(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    *,
    out: str | Path | None = None,
) -> dict[str, np.float64] | dict[str, np.ndarray] | Path:
    """Negative log-likelihood of each output given one posterior sample; lower is better.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the mean over cells is returned; otherwise one value for each cell.
    out
        New file (`.h5ad` or `.zarr`) that the value of each cell is written to batch by batch,
        whatever `return_mean` is. It holds an AnnData with a column of `obs` for each metric.

    Returns
    -------
    Nats per cell by the name of the metric, `"reconstruction_loss"` for a model of one output: one
    number each (a NumPy scalar), or an array [cells] in the requested order; with `out` the path of
    the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, `batch_size` is below 1, or the file exists.
    OutputError
        If the file cannot be written.
    """
    path = None if out is None else check_new_file(out)
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=True, encoded=True)

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Parts of the reconstruction loss of each cell of a batch."""
        parts = batch_loss(module, batch).reconstruction
        return {name: values.double() for name, values in parts.items()}

    if path is not None:
        return write_values(model, adata, cell_pass, values_of, path)
    found = collect_values(model, cell_pass, values_of)
    if return_mean:
        return {name: np.float64(values.mean()) for name, values in found.items()}
    return found


def batch_loss(module: Any, batch: Any) -> Loss:
    """Loss of a batch of cells, from one posterior sample, with the KL at its full weight."""
    device = next(module.parameters()).device
    loss: Loss = module.loss(batch, torch.ones((), device=device))
    return loss
