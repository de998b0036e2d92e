"""Library size of the genes and depth factor of the regions of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import inference_mode, plan_pass
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
    parts: dict[str, list[torch.Tensor]] = {}
    with inference_mode(model):
        for _, batch in cell_pass.iter_batches():
            latent: Any = model.module.encode(batch)
            for name, field in FIELDS.items():
                log_size = getattr(latent, field)
                if log_size is not None:
                    parts.setdefault(name, []).append(log_size.exp().squeeze(-1).cpu())
    return {name: torch.cat(sizes).numpy() for name, sizes in parts.items()}
