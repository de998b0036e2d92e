"""Sizes of cells as the model has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Size of each cell, in counts.

    Where the size is a latent variable, it has a lognormal posterior. Where it is observed, it is
    the sum of the counts, whatever `give_mean` says.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with. Genes are matched by name.
    indices
        Cells asked for, by number, mask or name; None for all.
    give_mean
        Whether the mean of the posterior is given; otherwise one draw from it.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether no progress is shown.

    Returns
    -------
    Array [cells, 1] in the order asked for.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    asked = plan_pass(model, adata, indices, batch_size, silent=silent)
    sizes = torch.empty(len(asked.cells), 1)
    with inference_mode(model):
        for positions, batch in asked.iter_batches():
            latent = model.module.encode(batch)
            log_size, posterior = latent.log_library, latent.log_library_posterior
            if give_mean and posterior is not None:
                log_size = posterior.loc + posterior.variance / 2
            sizes[positions] = log_size.exp().cpu()
    return sizes.numpy()
