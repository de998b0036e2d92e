"""Latent representation of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import inference_mode, iter_cell_batches
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@overload
def get_latent_representation(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    give_mean: bool = ...,
    mc_samples: int = ...,
    batch_size: int | None = ...,
    return_dist: Literal[False] = ...,
) -> np.ndarray: ...


@overload
def get_latent_representation(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    give_mean: bool = ...,
    mc_samples: int = ...,
    batch_size: int | None = ...,
    *,
    return_dist: Literal[True],
) -> tuple[np.ndarray, np.ndarray]: ...


@check_arguments(only=INTEGERS)
def get_latent_representation(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    give_mean: bool = True,
    mc_samples: int = 5_000,
    batch_size: int | None = None,
    return_dist: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Latent representation of each cell.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    give_mean
        Whether the posterior mean is returned; otherwise one sample of the posterior.
    mc_samples
        Number of samples that the mean of a logistic normal latent is estimated from.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_dist
        Whether mean and variance of the normal posterior are returned instead.

    Returns
    -------
    Array [cells, latent] in the requested order; with `return_dist`, means and variances.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `mc_samples` or `batch_size` is below 1.
    """
    check_at_least_one("mc_samples", mc_samples)
    means: list[Tensor] = []
    variances: list[Tensor] = []
    batches = iter_cell_batches(model, adata, indices, batch_size, encoded=True)
    with inference_mode(model):
        for batch in batches:
            latent = model.module.encode(batch)
            if return_dist:
                means.append(latent.posterior.loc.cpu())
                variances.append(latent.posterior.variance.cpu())
            elif give_mean:
                means.append(posterior_mean(model, latent.posterior, mc_samples).cpu())
            else:
                means.append(latent.sample.cpu())
    if return_dist:
        return torch.cat(means).numpy(), torch.cat(variances).numpy()
    return torch.cat(means).numpy()


def posterior_mean(
    model: EncoderModel, posterior: torch.distributions.Normal, mc_samples: int
) -> Tensor:
    """Posterior mean of the latent that the decoder reads; estimated by sampling if transformed."""
    if model.module.latent_is_gaussian:
        return posterior.loc
    return model.module.transform(posterior.sample(torch.Size([mc_samples]))).mean(dim=0)
