"""Marginal log-likelihood of cells by importance sampling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_matrix
from cellvae.inference.likelihood.importance_sampling import log_weights
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@overload
def get_marginal_ll(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    n_mc_samples: int = ...,
    batch_size: int | None = ...,
    return_mean: Literal[True] = ...,
    n_mc_samples_per_pass: int = ...,
    silent: bool = ...,
) -> np.float64: ...


@overload
def get_marginal_ll(
    model: EncoderModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    n_mc_samples: int = ...,
    batch_size: int | None = ...,
    *,
    return_mean: Literal[False],
    n_mc_samples_per_pass: int = ...,
    silent: bool = ...,
) -> np.ndarray: ...


@check_arguments(only=INTEGERS)
def get_marginal_ll(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_mc_samples: int = 1000,
    batch_size: int | None = None,
    return_mean: bool = True,
    n_mc_samples_per_pass: int = 1,
    silent: bool = False,
) -> np.float64 | np.ndarray:
    """Marginal log-likelihood log p(x) of cells; higher is better.

    Importance sampling averages p(x, z) / q(z | x) over posterior samples z (Burda, Grosse,
    Salakhutdinov 2016). The estimate is above the evidence lower bound, and approaches the true
    value with more samples.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    n_mc_samples
        Number of samples for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the mean over cells is returned; otherwise one value for each cell.
    n_mc_samples_per_pass
        Number of samples decoded together: memory grows with it, results do not depend on it.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Nats per cell: one number (a NumPy scalar), or an array [cells] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model, or it holds no counts.
    InvalidOptionError
        If no cells are requested, or a number is below 1.
    """
    check_at_least_one("n_mc_samples", n_mc_samples)
    check_at_least_one("n_mc_samples_per_pass", n_mc_samples_per_pass)
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent, counts=True)

    def marginal_of(module: Any, batch: Any) -> torch.Tensor:
        """Marginal log-likelihood of each cell of a batch."""
        return log_marginal(module, batch, n_mc_samples, n_mc_samples_per_pass)

    values = collect_matrix(model, cell_pass, marginal_of)
    return np.float64(torch.from_numpy(values).mean().item()) if return_mean else values


def log_marginal(
    module: GenerativeModule[Any], batch: Any, n_samples: int, n_per_pass: int
) -> Float[Tensor, " cells"]:
    """Logarithm of the mean importance weight of `n_samples` samples for each cell; nats."""
    latent = module.encode(batch)
    means = latent.posterior.loc
    total = means.new_full(means.shape[:1], -math.inf, dtype=torch.float64)
    for first in range(0, n_samples, n_per_pass):
        weights = log_weights(module, batch, latent, min(n_per_pass, n_samples - first))
        total = torch.logaddexp(total, weights.logsumexp(dim=0))
    return total - math.log(n_samples)
