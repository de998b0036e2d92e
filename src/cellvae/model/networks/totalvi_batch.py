"""What the network of totalVI reads of a batch of cells, and the latent variables of them."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Normal

from cellvae.core.csr_batch import CSRBatch


class TOTALVIBatch(NamedTuple):
    """Counts of genes and proteins, and covariates, of a batch of cells."""

    counts: Float[Tensor, "cells genes"] | CSRBatch
    batch: Int[Tensor, "cells 1"]
    labels: Int[Tensor, "cells 1"]
    proteins: Float[Tensor, "cells proteins"]
    """Counts of proteins; zero where a protein was not measured."""
    panel: Int[Tensor, "cells 1"]
    """Code of the panel of antibodies; that of the batch if no panels were set up."""
    size_factor: Float[Tensor, "cells 1"] | None = None
    categorical: Int[Tensor, "cells categorical"] | None = None
    continuous: Float[Tensor, "cells continuous"] | None = None
    latent_mean: Float[Tensor, "cells latent"] | None = None
    latent_variance: Float[Tensor, "cells latent"] | None = None
    library_mean: Float[Tensor, "cells 1"] | None = None
    library_variance: Float[Tensor, "cells 1"] | None = None
    n_labelled: int = 0
    """Number of cells at the end of the batch that only a classifier is trained on."""


class TOTALVILatent(NamedTuple):
    """Posterior of the latent variables of a batch of cells, and samples from it.

    The posterior of the background of proteins is decoded from the latent, so that a sample of the
    background is kept as the standard normal noise that its decoded mean and standard deviation
    transform.
    """

    posterior: Normal
    """q(z | x, y), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Sample from the posterior, transformed to the input space of the decoder."""
    log_library: Float[Tensor, "*samples cells 1"]
    """Natural logarithm of the library size of the genes of each cell."""
    background_noise: Float[Tensor, "*samples cells proteins"]
    """Standard normal noise of the log mean of the background of each protein."""
    log_library_posterior: Normal | None = None
    """q(log library size | x, y), [cells, 1]; None if the library size is observed."""


def covariate_codes(batch: TOTALVIBatch) -> list[Int[Tensor, "cells 1"]]:
    """Codes of batch and categorical covariates, [cells, 1] each."""
    categorical = batch.categorical
    return [batch.batch] + ([] if categorical is None else list(categorical.split(1, dim=-1)))


def divide_by_mean(counts: Tensor | CSRBatch) -> Tensor | CSRBatch:
    """Counts of each cell divided by one plus their mean."""
    if not isinstance(counts, CSRBatch):
        return counts / (1 + counts.mean(dim=-1, keepdim=True))
    factors = 1 + counts.sum_by_cell().squeeze(-1) / counts.n_genes
    by_entry = factors.repeat_interleave(counts.indptr.diff(), output_size=len(counts.values))
    return counts._replace(values=counts.values / by_entry)
