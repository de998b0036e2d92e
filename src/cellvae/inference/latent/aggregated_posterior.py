"""Aggregated posterior: the density of a population of cells in the latent space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, StudentT

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_ELEMENTS = 2**22
"""Densities of single dimensions that are in memory at a time."""


@check_arguments(only=INTEGERS)
def get_aggregated_posterior(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    dof: float | None = 3.0,
    silent: bool = False,
) -> MixtureSameFamily:
    """Mixture of the posteriors of cells with equal weights.

    A density over latent vectors, [latent], before the transform of a logistic normal latent.

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
    dof
        Degrees of freedom of Student's t distributions with the means and scales of the posteriors,
        which have heavier tails; None for the normal posteriors themselves.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Distribution of torch on the CPU. For many points,
    :func:`mixture_log_prob` needs less memory.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `dof` is not above 0.
    """
    check_dof(dof)
    return make_mixture(*cell_posteriors(model, adata, indices, batch_size, silent=silent), dof)


def check_dof(dof: float | None) -> None:
    """Check degrees of freedom.

    Raises
    ------
    InvalidOptionError
        If they are not a positive number or None.
    """
    if dof is not None and not 0 < dof < math.inf:
        raise InvalidOptionError(
            f"Expected dof to be a finite number above 0, or None for normal components; got {dof}."
        )


def cell_posteriors(
    model: EncoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    silent: bool = False,
) -> tuple[Float[Tensor, "cells latent"], Float[Tensor, "cells latent"]]:
    """Mean and standard deviation of the posterior of each cell, on the CPU."""
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)

    def posterior_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Mean and standard deviation of each cell of a batch."""
        posterior = module.encode(batch).posterior
        return {"mean": posterior.loc, "std": posterior.stddev}

    found = collect_values(model, cell_pass, posterior_of)
    return torch.from_numpy(found["mean"]), torch.from_numpy(found["std"])


def make_mixture(
    means: Float[Tensor, "cells latent"],
    stds: Float[Tensor, "cells latent"],
    dof: float | None,
) -> MixtureSameFamily:
    """Mixture of normal or Student's t distributions with equal weights."""
    components = (
        Normal(means, stds, validate_args=False)
        if dof is None
        else StudentT(dof, means, stds, validate_args=False)
    )
    equal = Categorical(logits=torch.zeros(len(means)), validate_args=False)
    return MixtureSameFamily(
        equal, Independent(components, 1, validate_args=False), validate_args=False
    )


def mixture_log_prob(
    mixture: MixtureSameFamily, points: Float[Tensor, "points latent"]
) -> Float[Tensor, " points"]:
    """Log-density of a mixture at points, computed in chunks; nats."""
    independent: Any = mixture.component_distribution
    components = independent.base_dist
    n_components, n_latent = components.mean.shape
    if isinstance(components, Normal):
        return normal_mixture_log_prob(components.loc, components.scale, points)
    step = max(1, MAX_ELEMENTS // (n_components * n_latent))
    return torch.cat([mixture.log_prob(chunk) for chunk in points.split(step)])


def normal_mixture_log_prob(
    means: Float[Tensor, "cells latent"],
    stds: Float[Tensor, "cells latent"],
    points: Float[Tensor, "points latent"],
) -> Float[Tensor, " points"]:
    """Log-density of a mixture of normal distributions, by matrix products; nats.

    The squares in the exponent are expanded, which needs double precision.
    """
    means, stds, z = means.double(), stds.double(), points.double()
    n_cells, n_latent = means.shape
    precision = stds.square().reciprocal()
    constant = (means.square() * precision / 2 + stds.log()).sum(dim=1)
    constant += n_latent * math.log(2 * math.pi) / 2 + math.log(n_cells)
    squared, linear = (-precision / 2).T, (means * precision).T
    parts = []
    for chunk in z.split(max(1, MAX_ELEMENTS // n_cells)):
        exponent = torch.addmm(chunk.square() @ squared - constant, chunk, linear)
        parts.append(exponent.logsumexp(dim=1))
    return torch.cat(parts).to(points.dtype)
