"""Library sizes of cells under a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_latent_library_size(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    silent: bool = False,
) -> np.ndarray:
    """Library size of each cell, in counts.

    A latent library size has a log-normal posterior. An observed one is the sum of the counts, and
    `give_mean` has no effect.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    give_mean
        Whether the posterior mean is returned; otherwise one sample of the posterior.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Array [cells, 1] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `batch_size` is below 1.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    sizes = torch.empty(len(cell_pass.cells), 1)
    with inference_mode(model):
        for positions, batch in cell_pass.iter_batches():
            latent: Any = model.module.encode(batch)
            log_library, posterior = latent.log_library, latent.log_library_posterior
            if give_mean and posterior is not None:
                log_library = posterior.loc + posterior.variance / 2
            sizes[positions] = log_library.exp().cpu()
    return sizes.numpy()
