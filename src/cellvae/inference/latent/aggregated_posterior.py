"""Aggregated posterior: where the cells of a population lie in the latent space."""

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
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_ELEMENTS = 2**22
"""Densities of single dimensions that are held in memory at a time."""


@check_arguments(only=INTEGERS)
def get_aggregated_posterior(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    dof: float | None = 3.0,
    silent: bool = False,
) -> MixtureSameFamily:
    """Mixture of the posteriors of cells, each with the same weight.

    It is a density over whole latent vectors, [latent], before a logistic normal latent is
    transformed.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with.
    indices
        Cells asked for, by number, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    dof
        Degrees of freedom of a Student's t distribution with the mean and the scale of the
        posterior, which has heavier tails; None for the normal posterior itself.
    silent
        Whether no progress is shown.

    Returns
    -------
    Distribution of torch on the CPU, with `sample` and `log_prob`. For many points,
    :func:`log_density` needs less memory.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are asked for, or `dof` is not above 0.
    """
    check_dof(dof)
    return make_mixture(*cell_posteriors(model, adata, indices, batch_size, silent=silent), dof)


def check_dof(dof: float | None) -> None:
    """Refuse degrees of freedom that no distribution has."""
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
    asked = plan_pass(model, adata, indices, batch_size, silent=silent)
    means, deviations = [], []
    with inference_mode(model):
        for _, batch in asked.iter_batches():
            posterior = model.module.encode(batch).posterior
            means.append(posterior.loc.cpu())
            deviations.append(posterior.stddev.cpu())
    # Tensors of inference mode could not be used in a loss.
    return torch.cat(means).clone(), torch.cat(deviations).clone()


def make_mixture(
    means: Float[Tensor, "cells latent"],
    deviations: Float[Tensor, "cells latent"],
    dof: float | None,
) -> MixtureSameFamily:
    """Mixture of normal or Student's t distributions of equal weight."""
    one = (
        Normal(means, deviations, validate_args=False)
        if dof is None
        else StudentT(dof, means, deviations, validate_args=False)
    )
    equal = Categorical(logits=torch.zeros(len(means)), validate_args=False)
    return MixtureSameFamily(equal, Independent(one, 1, validate_args=False), validate_args=False)


def mixture_log_prob(
    mixed: MixtureSameFamily, points: Float[Tensor, "points latent"]
) -> Float[Tensor, " points"]:
    """Logarithm of the density of a mixture at points, a few of them at a time; nats."""
    parts: Any = mixed.component_distribution
    parts = parts.base_dist
    n_components, n_latent = parts.mean.shape
    if isinstance(parts, Normal):
        return normal_mixture_log_prob(parts.loc, parts.scale, points)
    step = max(1, MAX_ELEMENTS // (n_components * n_latent))
    return torch.cat([mixed.log_prob(few) for few in points.split(step)])


def normal_mixture_log_prob(
    means: Float[Tensor, "cells latent"],
    deviations: Float[Tensor, "cells latent"],
    points: Float[Tensor, "points latent"],
) -> Float[Tensor, " points"]:
    """Logarithm of the density of a mixture of normals, by products of matrices; nats.

    The squares in the exponent are multiplied out, which double precision bears.
    """
    means, deviations, z = means.double(), deviations.double(), points.double()
    n_cells, n_latent = means.shape
    precision = deviations.square().reciprocal()
    constant = (means.square() * precision / 2 + deviations.log()).sum(dim=1)
    constant += n_latent * math.log(2 * math.pi) / 2 + math.log(n_cells)
    squared, linear = (-precision / 2).T, (means * precision).T
    parts = []
    for few in z.split(max(1, MAX_ELEMENTS // n_cells)):
        exponent = torch.addmm(few.square() @ squared - constant, few, linear)
        parts.append(exponent.logsumexp(dim=1))
    return torch.cat(parts).to(points.dtype)
