"""Latent representation of cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values, write_values
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


@overload
def get_latent_representation(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    give_mean: bool = ...,
    mc_samples: int = ...,
    batch_size: int | None = ...,
    return_dist: bool = ...,
    *,
    out: str | Path,
) -> Path: ...


@check_arguments(only=INTEGERS)
def get_latent_representation(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    give_mean: bool = True,
    mc_samples: int = 5_000,
    batch_size: int | None = None,
    return_dist: bool = False,
    *,
    out: str | Path | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray] | Path:
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
    out
        New file (`.h5ad` or `.zarr`) that the result is written to batch by batch. It holds an
        AnnData with `obsm["latent"]`, and with `return_dist` also `obsm["latent_variance"]`.

    Returns
    -------
    Array [cells, latent] in the requested order; with `return_dist`, means and variances; with
    `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, `mc_samples` or `batch_size` is below 1, or the file exists.
    OutputError
        If the file cannot be written.
    """
    check_at_least_one("mc_samples", mc_samples)
    path = None if out is None else check_new_file(out)
    cell_pass = plan_pass(model, adata, indices, batch_size, encoded=True)

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Latent of a batch."""
        latent = module.encode(batch)
        posterior = latent.posterior
        if return_dist:
            return {"latent": posterior.loc, "latent_variance": posterior.variance}
        if give_mean:
            return {"latent": posterior_mean(module, posterior, mc_samples)}
        return {"latent": latent.sample}

    if path is not None:
        return write_values(model, adata, cell_pass, values_of, path)
    found = collect_values(model, cell_pass, values_of)
    return (found["latent"], found["latent_variance"]) if return_dist else found["latent"]


def posterior_mean(module: Any, posterior: torch.distributions.Normal, mc_samples: int) -> Tensor:
    """Posterior mean of the latent that the decoder reads; estimated by sampling if transformed."""
    if module.latent_is_gaussian:
        return posterior.loc
    mean: Tensor = module.transform(posterior.sample(torch.Size([mc_samples]))).mean(dim=0)
    return mean
