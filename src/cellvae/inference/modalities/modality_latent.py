"""Latent representation of cells by all modalities, or by one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.inference.arguments import INTEGERS, check_at_least_one, check_choice
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values, write_values
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
    out: str | Path | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray] | Path:
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
        If features or categories of `adata` are not those of the model, or the latent of one
        modality is requested for minified cells without counts.
    InvalidOptionError
        If the model does not have the modality, no cells are requested, `mc_samples` or
        `batch_size` is below 1, or the file exists.
    OutputError
        If the file cannot be written.
    """
    check_choice("modality", modality, tuple(POSTERIORS))
    check_at_least_one("mc_samples", mc_samples)
    field = POSTERIORS[modality]
    if modality != "joint":
        features_of(model, field)
    path = None if out is None else check_new_file(out)
    # A minified AnnData stores the joint posterior alone.
    of_one = modality != "joint"
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=of_one, encoded=True)

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Latent of a batch."""
        latent: Any = module.encode(batch._replace(latent_mean=None) if of_one else batch)
        posterior = getattr(latent, field)
        if return_dist:
            return {"latent": posterior.loc, "latent_variance": posterior.variance}
        if give_mean:
            return {"latent": posterior_mean(module, posterior, mc_samples)}
        return {"latent": module.transform(posterior.sample())}

    if path is not None:
        return write_values(model, adata, cell_pass, values_of, path)
    found = collect_values(model, cell_pass, values_of)
    return (found["latent"], found["latent_variance"]) if return_dist else found["latent"]
