"""Importance weights of latent codes for a population of cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from cellvae.core.options import check_arguments
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.poisson import Poisson
from cellvae.distributions.protocol import CountDistribution
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import CellPass, inference_mode, plan_pass
from cellvae.inference.likelihood.marginal_likelihood import log_marginal
from cellvae.inference.posterior_samples import first_observed
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_ELEMENTS = 2**23
"""Densities of single counts that are in memory at a time."""


@check_arguments(only=INTEGERS)
def get_importance_weights(
    model: EncoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    qz: Normal,
    px: CountDistribution,
    zs: Float[Tensor, "*samples latent"],
    max_cells: int = 1024,
    truncation: bool = False,
    n_mc_samples: int = 500,
    n_mc_samples_per_pass: int = 250,
    batch_size: int | None = None,
    silent: bool = False,
) -> np.ndarray:
    """Importance weights of samples from the aggregated posterior of a population of cells.

    A latent code z has the weight p(z) sum_a p(x_a | z) / p(x_a), divided by sum_a q(z | x_a), for
    cells a that represent the population (Boyeau et al. 2023). Weights are large for codes under
    which many cells are likely and which the approximate posteriors rarely sample.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    indices
        Cells of the population, by index, mask or name; None for all.
    qz
        Posterior of these cells, [cells, latent], in their order.
    px
        Decoded distribution of the counts for each code, [*samples, genes]. If it has a scale
        (normalized expression), counts of each cell are at its own library size.
    zs
        Latent codes, before the transform of a logistic normal latent.
    max_cells
        Number of cells that represent the population, chosen at random if there are more.
    truncation
        Whether weights are truncated at their mean times the square root of their number, which
        bounds the variance (Ionides 2008).
    n_mc_samples, n_mc_samples_per_pass
        Number of samples for p(x) of each of the cells, as in :func:`get_marginal_ll`.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Array [*samples] that sums to 1.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model, or it holds no counts.
    InvalidOptionError
        If shapes do not fit each other, or a number is below 1.
    """
    check_at_least_one("n_mc_samples", n_mc_samples)
    check_at_least_one("n_mc_samples_per_pass", n_mc_samples_per_pass)
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent, counts=True)
    check_shapes(qz, zs, len(cell_pass.cells), max_cells)
    anchors = torch.randperm(len(cell_pass.cells))[:max_cells].sort().values
    qz = Normal(qz.loc[anchors], qz.scale[anchors], validate_args=False)
    cell_pass = cell_pass._replace(cells=cell_pass.cells[anchors])
    with inference_mode(model):
        logs = log_importance(model, cell_pass, qz, px, zs, n_mc_samples, n_mc_samples_per_pass)
        if truncation:
            logs = truncate_log_weights(logs)
        weights: np.ndarray = logs.softmax(dim=0).reshape(zs.shape[:-1]).cpu().numpy()
    return weights


def check_shapes(qz: Normal, zs: Tensor, n_cells: int, max_cells: int) -> None:
    """Check that the shapes of posteriors, codes and cells agree.

    Raises
    ------
    InvalidOptionError
        If they do not, or there are no cells to represent the population.
    """
    check_at_least_one("max_cells", max_cells)
    n_latent = zs.shape[-1]
    if qz.loc.shape != (n_cells, n_latent):
        raise InvalidOptionError(
            f"Expected qz to be of the shape [cells, latent] = [{n_cells}, {n_latent}]; got "
            f"{[*qz.loc.shape]}. Give the posterior of the cells of indices."
        )


def log_importance(
    model: EncoderModel,
    anchors: CellPass,
    qz: Normal,
    px: CountDistribution,
    zs: Tensor,
    n_samples: int,
    n_per_pass: int,
) -> Float[Tensor, " codes"]:
    """Unnormalized log-weights in double precision; nats."""
    codes = zs.to(model.device).reshape(-1, zs.shape[-1])
    numerator = codes.new_full(codes.shape[:1], -math.inf, dtype=torch.float64)
    denominator = numerator.clone()
    for positions, batch in anchors.iter_batches():
        log_px = log_marginal(model.module, batch, n_samples, n_per_pass)
        counts = first_observed(model.module, batch)
        sizes = library_sizes(model.module, batch)
        log_ratio = log_likelihoods(px, counts, zs.shape[:-1], sizes) - log_px.unsqueeze(-1)
        shape = (len(log_ratio), codes.shape[-1])
        prior = log_densities(model.module.prior(batch).expand(shape), codes)
        numerator = torch.logaddexp(numerator, (log_ratio + prior).logsumexp(dim=0))
        posterior = Normal(qz.loc[positions], qz.scale[positions], validate_args=False)
        denominator = torch.logaddexp(denominator, log_densities(posterior, codes).logsumexp(dim=0))
    return numerator - denominator


def library_sizes(module: Any, batch: Any) -> Float[Tensor, "cells 1"]:
    """Library size or size factor of each cell, which normalized expression is multiplied by."""
    has_factors = getattr(getattr(module, "sizes", None), "size_factor", False)
    if has_factors:
        factors: Tensor = batch.size_factor
        return factors
    return first_observed(module, batch).sum(dim=-1, keepdim=True)


def rescale(px: CountDistribution, sizes: Float[Tensor, "cells *codes 1"]) -> CountDistribution:
    """Distributions of the counts at other library sizes; unchanged if there is no scale."""
    scale = getattr(px, "scale", None)
    if scale is None:
        return px
    if isinstance(px, Poisson):
        return Poisson(rate=scale * sizes)
    if isinstance(px, ZeroInflatedNegativeBinomial):
        return ZeroInflatedNegativeBinomial(
            mu=scale * sizes, theta=px.theta, zi_logits=px.zi_logits
        )
    if isinstance(px, NegativeBinomial):
        return NegativeBinomial(mu=scale * sizes, theta=px.theta)
    return px


def log_likelihoods(
    px: CountDistribution,
    counts: Float[Tensor, "cells genes"],
    shape: torch.Size,
    sizes: Float[Tensor, "cells 1"],
) -> Float[Tensor, "cells codes"]:
    """Log-likelihood of the counts of each cell under each code, in chunks of cells.

    Decoded fractions are scaled to the library size of the cell whose likelihood is computed.
    """
    n_cells, n_genes = counts.shape
    step = max(1, MAX_ELEMENTS // (shape.numel() * n_genes))
    device = px.mean.device
    wide = counts.to(device).reshape(n_cells, *(1 for _ in shape), n_genes)
    sizes = sizes.to(device).reshape(n_cells, *(1 for _ in shape), 1)
    parts = [
        rescale(px, size).log_prob(chunk).sum(dim=-1, dtype=torch.float64)
        for chunk, size in zip(wide.split(step), sizes.split(step), strict=True)
    ]
    return torch.cat(parts).reshape(n_cells, -1).to(counts.device)


def log_densities(
    normal: Normal, codes: Float[Tensor, "codes latent"]
) -> Float[Tensor, "cells codes"]:
    """Log-density of each code under the normal distribution of each cell."""
    loc, scale = (values.to(codes.device).unsqueeze(1) for values in (normal.loc, normal.scale))
    density = Normal(loc, scale, validate_args=False).log_prob(codes)
    return density.sum(dim=-1, dtype=torch.float64)


def truncate_log_weights(logs: Float[Tensor, " codes"]) -> Float[Tensor, " codes"]:
    """Log-weights truncated at the mean weight times the square root of their number."""
    n = len(logs)
    largest = logs.logsumexp(dim=0) - math.log(n) + math.log(n) / 2
    return logs.clamp(max=largest)
