"""Normalized expression of genes, imputed in cells in which they were not measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    feature_positions,
    gene_names,
)
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values
from cellvae.inference.expression.mean_expression import ExpressionRequest, iter_decoded
from cellvae.inference.output_features import features_of
from cellvae.inference.posterior_samples import SampleSums, latent_to_decode
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_modality_expression(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples_overall: int | None = None,
    transform_batch: BatchChoice = None,
    gene_list: Iterable[str] | None = None,
    use_z_mean: bool = True,
    n_samples: int = 1,
    batch_size: int | None = None,
    return_mean: bool = False,
    return_numpy: bool = False,
    silent: bool = False,
) -> pd.DataFrame | np.ndarray:
    """Decoded expression of each gene in each cell, as a fraction of the cell.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples_overall
        Number of cells to draw from those requested, with replacement; None for each of them once.
    transform_batch
        Name of the batch that cells are decoded as if they came from; several are averaged. None
        for the batch of each cell.
    gene_list
        Genes to return, in the requested order; None for all.
    use_z_mean
        Whether the mean of the latent posterior is decoded, so that all samples of a cell are the
        same; otherwise draws from it.
    n_samples
        Number of posterior samples for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the samples of a cell are averaged; otherwise all are returned.
    return_numpy
        Whether the result is an array in place of a DataFrame.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    DataFrame [cells, genes] with their names, in the requested order, or an array; with several
    samples that are not averaged an array [samples, cells, genes].

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If the model has no genes, or an argument has an invalid value.
    """
    for argument, value in (("n_samples", n_samples), ("n_samples_overall", n_samples_overall)):
        check_at_least_one(argument, value)
    names = features_of(model, "rna")
    request = ExpressionRequest(
        batch_codes=batch_codes(model.registration, transform_batch),
        genes=feature_positions(names, gene_list, "gene"),
        library_size=1.0,
        n_samples=n_samples,
        n_decoded=len(names),
    )
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    if n_samples_overall is not None:
        drawn = torch.randint(len(cell_pass.cells), (n_samples_overall,))
        cell_pass = cell_pass._replace(cells=cell_pass.cells[drawn])
    columns = gene_names(names, request.genes)
    averaged = return_mean or n_samples == 1

    def expression_of(module: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Expression of a batch of cells, [cells, genes] or [cells, samples, genes]."""
        latent = latent_to_decode(module, batch, n_samples, use_z_mean)
        sums = SampleSums(n_samples, averaged=averaged)
        for part, values in iter_decoded(module, latent, batch, request):
            sums.add(part, values)
        return {"expression": sums.result()}

    dim = 0 if averaged else 1
    result = collect_values(model, cell_pass, expression_of, cells_dim=dim)["expression"]
    if return_numpy or not averaged:
        return result
    import pandas as pd

    source: Any = model.adata if adata is None else adata
    cells = source.obs_names[cell_pass.cells.numpy()]
    return pd.DataFrame(result, index=cells, columns=columns, copy=False)
