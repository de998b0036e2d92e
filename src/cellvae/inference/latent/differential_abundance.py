"""Differential abundance: which samples have many cells where a cell lies."""

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
"""Entry of `adata.obsm` that the result is kept in."""


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
    """Density of each sample where each cell lies in the latent space.

    The density of a sample is the mixture of the posteriors of its cells. A cell in whose
    neighbourhood one sample is more abundant than another has a higher value for it: the difference
    of two columns is a log-ratio of abundances. Samples count alike, however many cells they have.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells that the densities are made from; None for those that the model was made with.
    adata_sub
        Cells to judge, such as a part of them; None for the same. The result is kept in its
        `obsm["da_log_probs"]` too.
    sample_key
        Column of `adata.obs` with the sample of each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    num_cells_posterior
        Cells that stand for a sample, chosen at random without replacement; None for all of them.
    dof
        Degrees of freedom of Student's t components; None for normal ones.
    silent
        Whether no progress is shown.

    Returns
    -------
    DataFrame [cells, samples], nats; samples are in the order of their categories, and columns are
    named by their values (in `obsm` by text, as files want it).

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
    judged = source if adata_sub is None else adata_sub
    if sample_key is None:
        raise InvalidOptionError(
            "Expected sample_key, the column of adata.obs with the sample of each cell; got None."
        )
    samples = to_categorical(source, sample_key).cat.remove_unused_categories().cat
    means, deviations = cell_posteriors(model, adata, None, batch_size, silent=silent)
    points = means.double()
    if adata_sub is not None:
        points = cell_posteriors(model, adata_sub, None, batch_size, silent=silent)[0].double()
    values = np.empty((len(points), len(samples.categories)))
    codes = samples.codes.to_numpy()
    for code in range(values.shape[1]):
        cells = torch.from_numpy(np.flatnonzero(codes == code))
        if num_cells_posterior is not None:
            cells = cells[torch.randperm(len(cells))[:num_cells_posterior]]
        mixed = make_mixture(means[cells].double(), deviations[cells].double(), dof)
        values[:, code] = mixture_log_prob(mixed, points).numpy()
    table = pd.DataFrame(values, index=judged.obs_names, columns=samples.categories)
    # Files of cells have text as names of columns.
    judged.obsm[RESULT_KEY] = table.set_axis([str(name) for name in samples.categories], axis=1)
    return table
