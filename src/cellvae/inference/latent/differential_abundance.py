"""Differential abundance of samples in the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.data.setup.obs_columns import to_categorical
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.latent.aggregated_posterior import (
    cell_posteriors,
    check_dof,
    make_mixture,
    mixture_log_prob,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

RESULT_KEY = "da_log_probs"
"""Key of the result in `adata.obsm`."""


@check_arguments(only=INTEGERS)
def differential_abundance(
    model: DecoderModel,
    adata: AnnData | None = None,
    adata_sub: AnnData | None = None,
    sample_key: str | None = None,
    batch_size: int | None = 128,
    num_cells_posterior: int | None = None,
    dof: float | None = None,
    silent: bool = False,
) -> pd.DataFrame:
    """Log-density of each biological sample at the latent position of each cell.

    The density of a sample is the mixture of the posteriors of its cells. It is higher where the
    sample is more abundant: the difference of two columns is a log-ratio of abundances. Densities
    do not depend on the number of cells of a sample.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells whose densities are computed; None for those that the model was made with.
    adata_sub
        Cells at which densities are evaluated, such as a subset; None for the same cells. The
        result is also stored in their `obsm["da_log_probs"]`.
    sample_key
        Column of `adata.obs` with the sample of each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    num_cells_posterior
        Number of random cells that represent a sample, without replacement; None for all of them.
    dof
        Degrees of freedom of Student's t components; None for normal ones.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    DataFrame [cells, samples], nats; samples are in the order of their categories, which name the
    columns (as strings in `obsm`, as files require).

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories are not those of the model, or there are no cells.
    UnknownKeyError
        If there is no such column.
    InvalidOptionError
        If `sample_key` is not given, or a number is too small.
    """
    import pandas as pd

    model.rows_for(adata)
    check_dof(dof)
    check_at_least_one("num_cells_posterior", num_cells_posterior)
    source = model.adata if adata is None else adata
    if source is None:
        raise DataMismatchError("The model was loaded without cells. Give adata.")
    scored = source if adata_sub is None else adata_sub
    if sample_key is None:
        raise InvalidOptionError(
            "Expected sample_key, the column of adata.obs with the sample of each cell; got None."
        )
    samples = to_categorical(source, sample_key).cat.remove_unused_categories().cat
    means, stds = cell_posteriors(model, adata, None, batch_size, silent=silent)
    points = means.double()
    if adata_sub is not None:
        points = cell_posteriors(model, adata_sub, None, batch_size, silent=silent)[0].double()
    values = np.empty((len(points), len(samples.categories)))
    codes = samples.codes.to_numpy()
    for code in range(values.shape[1]):
        cells = torch.from_numpy(np.flatnonzero(codes == code))
        if num_cells_posterior is not None:
            cells = cells[torch.randperm(len(cells))[:num_cells_posterior]]
        mixture = make_mixture(means[cells].double(), stds[cells].double(), dof)
        values[:, code] = mixture_log_prob(mixture, points).numpy()
    table = pd.DataFrame(values, index=scored.obs_names, columns=samples.categories)
    # Column names in files are strings.
    scored.obsm[RESULT_KEY] = table.set_axis([str(name) for name in samples.categories], axis=1)
    return table
