"""Loss of a model written in Pyro: its parts, and what the optimizer minimises."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from pyro.poutine import Trace


def pyro_elbo_loss(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *arguments: Any,
    n_cells: int,
    cells: str = "cells",
) -> Loss:
    """Negative evidence lower bound of a batch, by Pyro's `differentiable_loss`.

    Divergences have their closed form where there is one (`TraceMeanField_ELBO`). Weights that
    `pyro.poutine.scale` gives to sites are in the objective, and not in the parts.

    Parameters
    ----------
    model, guide
        Functions of the same arguments that call `pyro.sample`; observed sites and those of single
        cells stand in `pyro.plate("cells", n_cells, subsample=counts)`.
    *arguments
        What both are called with.
    n_cells
        Cells of the whole data, which is the size of that plate.
    cells
        Name of that plate.

    Raises
    ------
    InvalidOptionError
        If no site stands in the plate, or nothing is observed there.
    """
    import pyro

    bound = traced_elbo()()
    with pyro.validation_enabled(False):
        objective = bound.differentiable_loss(model, guide, *arguments) / n_cells
        of_model, of_guide = bound.traces
        reconstruction, kl, kl_global = elbo_terms(of_model, of_guide, cells)
    if reconstruction is None:
        raise InvalidOptionError(
            f"Expected an observed site in pyro.plate('{cells}', ...); got none. Name the plate of "
            "the cells with cells=..."
        )
    zero = torch.zeros_like(reconstruction)
    return Loss(
        loss=objective,
        reconstruction={"reconstruction_loss": reconstruction},
        kl_local={"kl_local": zero if kl is None else kl},
        kl_global=zero.sum() if kl_global is None else kl_global,
    )


@cache
def traced_elbo() -> Any:
    """Class of Pyro's bound that keeps the traces it was computed from; made at first use."""
    from pyro.infer import TraceMeanField_ELBO

    class RecordedBound(TraceMeanField_ELBO):
        """Bound that keeps the traces it was computed from."""

        traces: tuple[Trace, Trace]

        def _get_trace(self, *args: Any) -> tuple[Trace, Trace]:
            self.traces = super()._get_trace(*args)
            return self.traces

    return RecordedBound


def elbo_terms(
    model: Trace, guide: Trace, cells: str
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Reconstruction and local KL of each cell, and KL of what all cells share; no gradients."""
    from pyro.poutine.util import site_is_subsample

    reconstruction: Tensor | None = None
    local: Tensor | None = None
    shared: Tensor | None = None
    with torch.no_grad():
        for name, site in model.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            of_cells = any(frame.name == cells for frame in site["cond_indep_stack"])
            if site["is_observed"]:
                if of_cells:
                    cost = -site["unscaled_log_prob"]
                    reconstruction = cost if reconstruction is None else reconstruction + cost
                continue
            divergence = site_kl(guide.nodes[name], site)
            if of_cells:
                local = divergence if local is None else local + divergence
            else:
                shared = divergence.sum() if shared is None else shared + divergence.sum()
    return reconstruction, local, shared


def site_kl(guide: Any, model: Any) -> Tensor:
    """KL of a site: closed where there is such a form, else by the draw."""
    from torch.distributions import kl_divergence

    try:
        closed: Tensor = kl_divergence(guide["fn"], model["fn"])
    except NotImplementedError:
        drawn: Tensor = guide["fn"].log_prob(guide["value"]) - model["fn"].log_prob(model["value"])
        return drawn
    return closed
