"""Evidence lower bound and reconstruction error of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import sum_parts
from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import inference_mode, iter_cell_batches
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


@check_arguments(only=INTEGERS)
def get_elbo(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    return_mean: bool = True,
) -> np.float64 | np.ndarray:
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

    Returns
    -------
    Nats per cell: one number (a NumPy scalar), or an array [cells] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    """
    parts, kl, kl_global = per_cell_losses(model, adata, indices, batch_size)
    elbo = -(sum_parts(parts) + kl + kl_global / len(kl))
    return np.float64(elbo.mean().item()) if return_mean else elbo.numpy()


@check_arguments(only=INTEGERS)
def get_reconstruction_error(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    return_mean: bool = True,
) -> dict[str, np.float64] | dict[str, np.ndarray]:
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

    Returns
    -------
    Nats per cell by the name of the metric, `"reconstruction_loss"` for a model of one output: one
    number each (a NumPy scalar), or an array [cells] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    """
    parts, _, _ = per_cell_losses(model, adata, indices, batch_size)
    if return_mean:
        return {name: np.float64(values.mean().item()) for name, values in parts.items()}
    return {name: values.numpy() for name, values in parts.items()}


def per_cell_losses(
    model: EncoderModel, adata: AnnData | None, indices: CellChoice, batch_size: int | None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Parts of the reconstruction loss and KL, [cells] each, and global KL, in double precision."""
    reconstruction: dict[str, list[Tensor]] = {}
    kl, kl_global = [], []
    batches = iter_cell_batches(model, adata, indices, batch_size, counts=True, encoded=True)
    with inference_mode(model):
        kl_weight = torch.ones((), device=model.device)
        for batch in batches:
            loss = model.module.loss(batch, kl_weight)
            for name, values in loss.reconstruction.items():
                reconstruction.setdefault(name, []).append(values.double().cpu())
            kl.append(loss.total_kl.double().cpu())
            kl_global.append(loss.kl_global.double().cpu())
    parts = {name: torch.cat(values) for name, values in reconstruction.items()}
    return parts, torch.cat(kl), torch.stack(kl_global).mean()
