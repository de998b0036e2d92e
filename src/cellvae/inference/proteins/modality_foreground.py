"""Foreground of protein counts in each cell, imputed in cells without proteins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import INTEGERS, BatchChoice, batch_codes
from cellvae.inference.expression.expression_arguments import check_samples
from cellvae.inference.posterior_samples import latent_to_decode
from cellvae.inference.proteins.background import foreground_of_cells
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_modality_foreground_probability(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    protein_list: Iterable[str] | None = None,
    n_samples: int = 1,
    batch_size: int | None = None,
    use_z_mean: bool = True,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    silent: bool = False,
    *,
    out: str | Path | None = None,
) -> pd.DataFrame | np.ndarray | Path:
    """Probability that the counts of a protein in a cell are more than background.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    transform_batch
        Name of the batch that cells are decoded as if they came from; several are averaged. None
        for the batch of each cell.
    protein_list
        Proteins to return, in the requested order; None for all.
    n_samples
        Number of posterior samples for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    use_z_mean
        Whether the mean of the posterior is decoded in place of samples, all of which are then the
        same.
    return_mean
        Whether the samples of a cell are averaged; otherwise all are returned.
    return_numpy
        Whether the result is an array; None for a DataFrame wherever it has two dimensions.
    silent
        Whether the progress bar is hidden.
    out
        AnnData file (`.h5ad` or `.zarr`) with the probabilities as `X`, written batch by batch;
        None for a result in memory.

    Returns
    -------
    DataFrame [cells, proteins] in the requested order, or an array; with `return_mean=False` and
    several samples an array [samples, cells, proteins]; with `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    UnknownKeyError
        If a protein or batch is not one of the model.
    InvalidOptionError
        If an argument has an invalid value, the model has no proteins, or the file exists.
    OutputError
        If the file cannot be written.
    """
    check_samples(n_samples, None, return_mean, return_numpy, out)
    return foreground_of_cells(
        model,
        adata,
        indices,
        batch_codes(model.registration, transform_batch),
        protein_list,
        lambda module, batch: latent_to_decode(module, batch, n_samples, use_z_mean),
        n_samples=1 if return_mean else n_samples,
        batch_size=batch_size,
        silent=silent,
        return_numpy=return_numpy,
        out=out,
    )
