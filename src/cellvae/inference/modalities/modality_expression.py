"""Normalized expression of genes, imputed in cells in which they were not measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    feature_positions,
    gene_names,
)
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import (
    collect_matrix,
    collect_values,
    named_matrix,
    names_of_cells,
    write_matrix,
)
from cellvae.inference.expression.expression_arguments import check_samples
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
    *,
    out: str | Path | None = None,
) -> pd.DataFrame | np.ndarray | Path:
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
    out
        AnnData file (`.h5ad` or `.zarr`) with the expression as `X`, written batch by batch; None
        for a result in memory.

    Returns
    -------
    DataFrame [cells, genes] with their names, in the requested order, or an array; with several
    samples that are not averaged an array [samples, cells, genes]; with `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If the model has no genes, an argument has an invalid value, or the file exists.
    OutputError
        If the file cannot be written.
    """
    check_at_least_one("n_samples_overall", n_samples_overall)
    check_samples(n_samples, None, return_mean, return_numpy or None, out)
    path = None if out is None else check_new_file(out)
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

    def expression_of(module: Any, batch: Any) -> torch.Tensor:
        """Expression of a batch of cells, [cells, genes] or [cells, samples, genes]."""
        latent = latent_to_decode(module, batch, n_samples, use_z_mean)
        sums = SampleSums(n_samples, averaged=averaged)
        for part, values in iter_decoded(module, latent, batch, request):
            sums.add(part, values)
        return sums.result()

    cells = names_of_cells(model, adata, cell_pass.cells)
    if path is not None:
        return write_matrix(model, cell_pass, expression_of, path, cells, columns)
    if not averaged:
        of_samples = named_matrix(expression_of)
        return collect_values(model, cell_pass, of_samples, cells_dim=1)["X"]
    values = collect_matrix(model, cell_pass, expression_of)
    if return_numpy:
        return values
    import pandas as pd

    return pd.DataFrame(values, cells, columns, copy=False)
