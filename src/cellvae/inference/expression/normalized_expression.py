"""Normalized expression of cells, computed batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cellvae.contracts import map_samples
from cellvae.core.options import check_arguments, check_kwargs
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    gene_names,
    gene_positions,
)
from cellvae.inference.cell_pass import CellPass, inference_mode, plan_pass
from cellvae.inference.cell_results import (
    collect_matrix,
    collect_values,
    names_of_cells,
    write_matrix,
)
from cellvae.inference.differential.posterior_pool import (
    PosteriorPool,
    iter_pool_chunks,
    sample_pool,
)
from cellvae.inference.differential.resampling import resample_pool
from cellvae.inference.expression.expression_arguments import (
    check_library_size,
    check_samples,
    check_weights,
)
from cellvae.inference.expression.mean_expression import (
    ExpressionRequest,
    iter_decoded,
    mean_expression,
)
from cellvae.inference.likelihood.importance_options import ImportanceOptions, importance_options
from cellvae.inference.posterior_samples import SampleSums, sample_latent
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_normalized_expression(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    gene_list: Iterable[str] | None = None,
    library_size: float | Literal["latent"] = 1.0,
    n_samples: int = 1,
    n_samples_overall: int | None = None,
    weights: Literal["uniform", "importance"] | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    silent: bool = False,
    *,
    out: str | Path | None = None,
    **importance_weighting_kwargs: Any,
) -> pd.DataFrame | np.ndarray | Path:
    """Decoded expression of each gene in each cell, without counting noise.

    Samples are averaged as they are made: memory holds the result and one batch of cells.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    transform_batch
        Name of the batch that cells are decoded as if they came from; several are averaged. None
        for the batch of each cell.
    gene_list
        Genes to return, in the requested order; None for all.
    library_size
        Library size that expression is scaled to: 1 gives fractions of the cell, 10,000 counts per
        10,000. `"latent"` gives expected counts (before zero inflation) at the library size of each
        cell. With size factors, expression is per unit of them.
    n_samples
        Number of posterior samples for each cell.
    n_samples_overall
        Number of samples for all cells together, each of a random cell, chosen with replacement: a
        sample of the cells as a population. Not together with `n_samples`.
    weights
        `"importance"` weights the samples of each cell by p(x, z) / q(z | x), which brings means
        closer to those of the true posterior; with `n_samples_overall`, each sample is one of 25
        candidates, chosen by weight. Unlike that of :func:`get_importance_weights`, which compares
        all samples with all cells, its memory does not grow with the number of cells.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the samples of a cell are averaged; otherwise all are returned.
    return_numpy
        Whether the result is an array instead of a DataFrame; None for a DataFrame wherever the
        result has two dimensions.
    silent
        Whether the progress bar is hidden.
    out
        New file (`.h5ad` or `.zarr`) that the result is written to batch by batch, for results that
        do not fit into memory. It holds an AnnData with the result as `X`.
    **importance_weighting_kwargs
        With `weights="importance"` and `n_samples_overall`, options of
        :func:`get_importance_weights` (`max_cells`, `truncation`, `n_mc_samples`,
        `n_mc_samples_per_pass`; also as a dictionary `importance_weighting_kwargs`):
        samples are then chosen by weights over all cells, as in scvi-tools, which takes far longer.

    Returns
    -------
    DataFrame [cells, genes] with their names, in the requested order; with `return_mean=False` and
    several samples an array [samples, cells, genes]; with `n_samples_overall` a DataFrame
    [n_samples_overall, genes] in which each row has the name of its cell; with `out` the
    path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If an argument has an invalid value, or the file exists.
    OutputError
        If the file cannot be written.
    """
    import pandas as pd

    check_samples(n_samples, n_samples_overall, return_mean, return_numpy, out)
    check_library_size(library_size)
    check_weights(weights, n_samples, n_samples_overall, return_mean)
    by_population = population_weights(
        importance_weighting_kwargs, weights, n_samples_overall, to_file=out is not None
    )
    path = None if out is None else check_new_file(out)
    request = ExpressionRequest(
        batch_codes=batch_codes(model.registration, transform_batch),
        genes=gene_positions(model.registration.genes, gene_list),
        library_size=library_size,
        n_samples=n_samples,
        n_decoded=model.registration.n_genes,
        importance=weights == "importance",
    )
    cell_pass = plan_pass(
        model, adata, indices, batch_size, silent=silent, counts=request.importance
    )
    if by_population is not None:
        assert n_samples_overall is not None
        pool = sample_population(
            model, adata, cell_pass, n_samples_overall, by_population, batch_size
        )
        cell_pass = cell_pass._replace(cells=pool.cells)
    elif n_samples_overall is not None:
        drawn = torch.randint(len(cell_pass.cells), (n_samples_overall,))
        cell_pass = cell_pass._replace(cells=cell_pass.cells[drawn])
    genes = gene_names(model.registration.genes, request.genes)
    cells = names_of_cells(model, adata, cell_pass.cells)

    def expression_of(module: Any, batch: Any) -> torch.Tensor:
        """Expression of a batch of cells, [cells, genes]."""
        return mean_expression(module, batch, request)

    if path is not None:
        return write_matrix(model, cell_pass, expression_of, path, cells, genes)
    if n_samples > 1 and not return_mean:
        return expression_samples(model, cell_pass, request)
    values = (
        collect_matrix(model, cell_pass, expression_of)
        if by_population is None
        else expression_of_pool(model, pool, request, (len(cells), len(genes)))
    )
    if return_numpy:
        return values
    return pd.DataFrame(values, index=cells, columns=genes, copy=False)


def population_weights(
    importance_kwargs: Mapping[str, Any],
    weights: str | None,
    n_samples_overall: int | None,
    *,
    to_file: bool,
) -> ImportanceOptions | None:
    """Options of importance weights over a population; None if there are no keyword arguments.

    Raises
    ------
    InvalidOptionError
        If they would have no effect, or the result is written to a file.
    UnknownOptionError
        If there is no such option.
    """
    kwargs = dict(importance_kwargs)
    nested = kwargs.pop("importance_weighting_kwargs", None)
    known = [f.name for f in fields(ImportanceOptions)]
    # A misspelt argument of the function arrives here, too.
    parameters = inspect.signature(get_normalized_expression).parameters
    check_kwargs(kwargs, [*known, *list(parameters)[1:]], "get_normalized_expression()")
    options = importance_options(nested if nested and not kwargs else kwargs, weights)
    if options is not None and (n_samples_overall is None or to_file):
        raise InvalidOptionError(
            "Expected n_samples_overall, the samples of the population, and no file (out) with "
            f"importance_weighting_kwargs; got n_samples_overall={n_samples_overall!r}"
            f"{' and out' if to_file else ''}."
        )
    return options


def sample_population(
    model: DecoderModel,
    adata: AnnData | None,
    cell_pass: CellPass,
    n_samples: int,
    options: ImportanceOptions,
    batch_size: int | None,
) -> PosteriorPool:
    """Posterior samples of the cells of a pass, chosen by importance weights over all of them."""
    population = cell_pass.cells.numpy()
    with inference_mode(model):
        pool = sample_pool(model.module, cell_pass, [population], n_samples, importance=False)
        return resample_pool(model, adata, [population], pool, options, batch_size)


def expression_of_pool(
    model: DecoderModel, pool: PosteriorPool, request: ExpressionRequest, shape: tuple[int, int]
) -> np.ndarray:
    """Expression of the samples of a pool, [samples, genes]."""
    result = np.empty(shape, dtype=np.float32)
    with inference_mode(model):
        for samples, latent, batch in iter_pool_chunks(pool, 0, request.n_decoded):
            single = map_samples(lambda values: values.unsqueeze(0), latent)
            for _, values in iter_decoded(model.module, single, batch, request):
                result[samples] = values[0].cpu().numpy()
    return result


def expression_samples(
    model: DecoderModel, cell_pass: CellPass, request: ExpressionRequest
) -> np.ndarray:
    """Expression for every posterior sample, [samples, cells, genes]."""

    def values_of(module: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Expression of a batch of cells, [cells, samples, genes]."""
        latent = sample_latent(module, batch, request.n_samples)
        sums = SampleSums(request.n_samples, averaged=False)
        for samples, values in iter_decoded(module, latent, batch, request):
            sums.add(samples, values)
        return {"samples": sums.result()}

    return collect_values(model, cell_pass, values_of, cells_dim=1)["samples"]
