"""Probabilities of detecting an accessible region: a factor for each cell, one for each region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_matrix
from cellvae.inference.output_features import region_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


class RegionFactorModule(Protocol):
    """A network that decodes accessibility, and may have a learned factor for each region."""

    region_factors: nn.Parameter | None

    def log_depth_factor(self, latent: Any) -> Float[Tensor, "*samples cells 1"]:
        """Log-probability that an accessible region of a cell is detected, without its factor."""
        ...

    def decode_accessibility(
        self, latent: Any, batch: Any
    ) -> Float[Tensor, "*samples cells regions"]:
        """Probability that a region is accessible."""
        ...


class RegionFactorModel(DecoderModel, Protocol):
    """A trained model of regions."""

    module: Any
    """Network that is `RegionFactorModule`."""


@check_arguments(only=INTEGERS)
def get_depth_factors(
    model: RegionFactorModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    silent: bool = False,
) -> np.ndarray:
    """Depth factor of each cell: the part of the detection probability that depends on the cell.

    Parameters
    ----------
    model
        Trained model of regions.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Array [cells] in the requested order, between 0 and 1; all 1 with `model_depth=False`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If regions or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `batch_size` is below 1.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent, counts=True)

    def depth_factors(module: Any, batch: Any) -> torch.Tensor:
        """Depth factor of each cell of a batch."""
        factors: torch.Tensor = module.log_depth_factor(module.encode(batch)).exp().squeeze(-1)
        return factors

    return collect_matrix(model, cell_pass, depth_factors)


def get_region_factors(model: RegionFactorModel) -> np.ndarray:
    """Factor of each region: the part of the detection probability that depends on the region.

    Parameters
    ----------
    model
        Trained model of regions.

    Returns
    -------
    Array [regions] in the order of the model, between 0 and 1.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    InvalidOptionError
        If the model has no regions, or was made with `region_factors=False`.
    """
    model.check_trained()
    region_names(model)
    module: RegionFactorModule = model.module
    if module.region_factors is None:
        raise InvalidOptionError(
            "Expected a model with region factors; this one was made with region_factors=False."
        )
    factors: np.ndarray = module.region_factors.detach().sigmoid().cpu().numpy()
    return factors
