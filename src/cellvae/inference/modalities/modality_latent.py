"""Latent representation of cells by all modalities, or by one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS, check_at_least_one, check_choice
from cellvae.inference.cell_pass import inference_mode, iter_cell_batches
from cellvae.inference.latent.latent_representation import posterior_mean
from cellvae.inference.output_features import features_of
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

POSTERIORS = {
    "joint": "posterior",
    "expression": "rna",
    "accessibility": "accessibility",
    "protein": "protein",
}
"""Field of the latent with the posterior of each choice of a modality."""


@check_arguments(only=INTEGERS)
def get_modality_latent(
    model: DecoderModel,
    adata: AnnData | None = None,
    modality: str = "joint",
    indices: CellChoice = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    return_dist: bool = False,
    *,
    mc_samples: int = 5_000,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Latent representation of each cell, from all of its modalities or from one.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    modality
        `"joint"` for all modalities that were measured in a cell, or `"expression"`,
        `"accessibility"` or `"protein"`. A cell without that modality has the representation of a
        cell with zeros only, which says nothing of it.
    indices
        Cells to use, by index, mask or name; None for all.
    give_mean
        Whether the posterior mean is returned; otherwise one sample of the posterior.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_dist
        Whether mean and variance of the normal posterior are returned instead.
    mc_samples
        Number of samples that the mean of a logistic normal latent is estimated from.

    Returns
    -------
    Array [cells, latent] in the requested order; with `return_dist`, means and variances.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model, or the latent of one
        modality is requested for minified cells without counts.
    InvalidOptionError
        If the model does not have the modality, no cells are requested, or `mc_samples` or
        `batch_size` is below 1.
    """
    check_choice("modality", modality, tuple(POSTERIORS))
    check_at_least_one("mc_samples", mc_samples)
    field = POSTERIORS[modality]
    if modality != "joint":
        features_of(model, field)
    means: list[Tensor] = []
    variances: list[Tensor] = []
    # A minified AnnData stores the joint posterior alone.
    of_one = modality != "joint"
    batches = iter_cell_batches(model, adata, indices, batch_size, counts=of_one, encoded=True)
    with inference_mode(model):
        for batch in batches:
            latent: Any = model.module.encode(batch._replace(latent_mean=None) if of_one else batch)
            posterior = getattr(latent, field)
            if return_dist:
                means.append(posterior.loc.cpu())
                variances.append(posterior.variance.cpu())
            elif give_mean:
                means.append(posterior_mean(model, posterior, mc_samples).cpu())
            else:
                means.append(model.module.transform(posterior.sample()).cpu())
    if return_dist:
        return torch.cat(means).numpy(), torch.cat(variances).numpy()
    return torch.cat(means).numpy()
