"""Library size of the genes and depth factor of the regions of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

FIELDS = {"expression": "log_library", "accessibility": "log_depth"}
"""Field of the latent with the logarithm of each size."""


@check_arguments(only=INTEGERS)
def get_size_factors(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    silent: bool = False,
) -> dict[str, np.ndarray]:
    """Sizes of each cell: library size of its genes, and depth factor of its regions.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Arrays [cells] in the requested order: `"expression"`, the library size in counts, and
    `"accessibility"`, between 0 and 1; without those of modalities that the model does not have.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `batch_size` is below 1.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)

    def size_factors(module: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Sizes of each cell of a batch."""
        latent = module.encode(batch)
        found = {name: getattr(latent, field) for name, field in FIELDS.items()}
        return {name: x.exp().squeeze(-1) for name, x in found.items() if x is not None}

    return collect_values(model, cell_pass, size_factors)
