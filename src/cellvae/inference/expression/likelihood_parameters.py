"""Parameters of the likelihood of the counts of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.distributions import NegativeBinomial, Normal, ZeroInflatedNegativeBinomial
from cellvae.distributions.protocol import CountDistribution
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values
from cellvae.inference.posterior_samples import (
    SampleSums,
    decode_samples,
    iter_chunks,
    sample_latent,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_likelihood_parameters(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples: int = 1,
    give_mean: bool = False,
    batch_size: int | None = None,
    silent: bool = False,
) -> dict[str, np.ndarray]:
    """Parameters of the likelihood of the counts of each cell, from posterior samples.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples
        Number of posterior samples for each cell.
    give_mean
        Whether parameters are averaged over the samples.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Arrays [cells, genes] by name, or [samples, cells, genes] for several samples that are not
    averaged: `"mean"` in counts, before zero inflation; `"dispersions"`, the inverse dispersion
    (`nb`, `zinb`), or the standard deviation of the `normal` likelihood; `"dropout"`, the
    probability that a count is replaced by zero (`zinb`). A Poisson likelihood has a mean only.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `n_samples` or `batch_size` is below 1.
    """
    check_at_least_one("n_samples", n_samples)
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    n_genes = model.registration.n_genes
    averaged = give_mean or n_samples == 1

    def parameters_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Parameters of a batch of cells."""
        latent = sample_latent(module, batch, n_samples)
        sums: dict[str, SampleSums] = {}
        for samples, few in iter_chunks(latent, n_genes):
            found = distribution_parameters(decode_samples(module, few, batch))
            for name, values in found.items():
                of_name = sums.setdefault(name, SampleSums(n_samples, averaged=averaged))
                of_name.add(samples, values)
        return {name: of_name.result() for name, of_name in sums.items()}

    return collect_values(model, cell_pass, parameters_of, cells_dim=0 if averaged else 1)


def distribution_parameters(counts: CountDistribution) -> dict[str, Tensor]:
    """Parameters of a distribution by name, each of the shape of the counts."""
    parameters = {"mean": counts.get_normalized("mu")}
    if isinstance(counts, ZeroInflatedNegativeBinomial):
        parameters["dropout"] = counts.zi_probs
    if isinstance(counts, NegativeBinomial):
        parameters["dispersions"] = counts.theta
    if isinstance(counts, Normal):
        parameters["dispersions"] = counts.stddev
    return parameters
