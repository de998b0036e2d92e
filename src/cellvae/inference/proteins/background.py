"""Foreground and background of protein counts in each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

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
from cellvae.inference.posterior_samples import (
    SampleSums,
    decode_samples,
    iter_chunks,
    sample_latent,
)
from cellvae.inference.proteins.protein_expression import ProteinOptions, protein_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_protein_foreground_probability(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    protein_list: Iterable[str] | None = None,
    n_samples: int = 1,
    batch_size: int | None = None,
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
        If an argument has an invalid value, or the file exists.
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
        lambda module, batch: sample_latent(module, batch, n_samples),
        n_samples=1 if return_mean else n_samples,
        batch_size=batch_size,
        silent=silent,
        return_numpy=return_numpy,
        out=out,
    )


def foreground_of_cells(
    model: DecoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    codes: Sequence[int | None],
    protein_list: Iterable[str] | None,
    draw: Callable[[Any, Any], Any],
    *,
    n_samples: int,
    batch_size: int | None,
    silent: bool,
    return_numpy: bool | None,
    out: str | Path | None,
) -> pd.DataFrame | np.ndarray | Path:
    """Foreground probabilities, [cells, proteins], or [samples, cells, proteins] if not averaged.

    Parameters
    ----------
    model
        Trained model.
    adata, indices
        Cells.
    codes
        Codes of the batches that cells are decoded as if they came from, which are averaged.
    protein_list
        Names of the proteins; None for all.
    draw
        Function from a network and a batch of cells to the latent that is decoded, [samples, cells,
        ...].
    n_samples
        Samples that are kept apart; with 1 they are averaged.
    batch_size
        Cells per batch.
    silent
        Whether the progress bar is hidden.
    return_numpy
        Whether the result is an array; None for a DataFrame wherever it has two dimensions.
    out
        File that the probabilities are written to; None for a result in memory.
    """
    import pandas as pd

    path = None if out is None else check_new_file(out)
    names = protein_names(model)
    options = ProteinOptions(proteins=feature_positions(names, protein_list, "protein"))
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    averaged = n_samples == 1

    def foreground_of(module: Any, batch: Any) -> Tensor:
        """Foreground probabilities of a batch of cells."""
        latent = draw(module, batch)
        sums = SampleSums(latent.sample.shape[0], averaged=averaged)
        for part, few in iter_chunks(latent, len(names)):
            for code in codes:
                counts: Any = decode_samples(module, few, batch, code, "protein")
                sums.add(part, options.foreground_probability(counts) / len(codes))
        return sums.result()

    cells, columns = (
        names_of_cells(model, adata, cell_pass.cells),
        gene_names(names, options.proteins),
    )
    if path is not None:
        return write_matrix(model, cell_pass, foreground_of, path, cells, columns)
    if not averaged:
        of_samples = named_matrix(foreground_of)
        return collect_values(model, cell_pass, of_samples, cells_dim=1)["X"]
    values = collect_matrix(model, cell_pass, foreground_of)
    return values if return_numpy else pd.DataFrame(values, cells, columns, copy=False)


@check_arguments(only=INTEGERS)
def get_protein_background_mean(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    n_samples: int = 1,
    silent: bool = False,
) -> np.ndarray:
    """Mean of the background counts of each protein in each cell, with the capture efficiency.

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
    n_samples
        Number of posterior samples for each cell, which are averaged.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Array [cells, proteins] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `n_samples` or `batch_size` is below 1.
    """
    check_at_least_one("n_samples", n_samples)
    n_proteins = len(protein_names(model))
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)

    def background_of(module: Any, batch: Any) -> Tensor:
        """Background of a batch of cells, [cells, proteins]."""
        sums = SampleSums(n_samples, averaged=True)
        for part, few in iter_chunks(sample_latent(module, batch, n_samples), n_proteins):
            counts: Any = decode_samples(module, few, batch, output="protein")
            sums.add(part, counts.mu1)
        return sums.result()

    return collect_matrix(model, cell_pass, background_of)
