"""Normalized expression of genes, imputed in cells in which they were not measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from cellvae.inference.cell_pass import CellPass, inference_mode, plan_pass
from cellvae.inference.cell_results import collect_parts, names_of_cells, write_matrix
from cellvae.inference.expression.expression_arguments import check_samples
from cellvae.inference.expression.mean_expression import ExpressionRequest, iter_decoded
from cellvae.inference.output_features import features_of
from cellvae.inference.posterior_samples import latent_to_decode
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
    cells = names_of_cells(model, adata, cell_pass.cells)
    if path is not None:
        parts = iter_means(model, cell_pass, request, use_z_mean=use_z_mean)
        return write_matrix(model, parts, path, cells, columns)
    if n_samples > 1 and not return_mean:
        result = torch.zeros((n_samples, len(cells), len(columns)))
        with inference_mode(model):
            for positions, batch in cell_pass.iter_batches():
                latent = latent_to_decode(model.module, batch, n_samples, use_z_mean)
                for part, values in iter_decoded(model.module, latent, batch, request):
                    result[part, positions] = values.cpu()
        return result.numpy()
    import pandas as pd

    parts = iter_means(model, cell_pass, request, use_z_mean=use_z_mean)
    means = collect_parts(model, parts, (len(cells), len(columns)))
    return means if return_numpy else pd.DataFrame(means, cells, columns, copy=False)


def iter_means(
    model: DecoderModel, cell_pass: CellPass, request: ExpressionRequest, *, use_z_mean: bool
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Means of the samples of cells, [cells, genes], with their positions, batch by batch."""
    for positions, batch in cell_pass.iter_batches():
        latent = latent_to_decode(model.module, batch, request.n_samples, use_z_mean)
        mean: Any = 0
        for _, values in iter_decoded(model.module, latent, batch, request):
            mean = mean + values.sum(dim=0) / request.n_samples
        yield positions, mean
