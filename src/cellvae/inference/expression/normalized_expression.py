"""Normalized expression of cells, streamed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cellvae.core.options import check_arguments, check_kwargs
from cellvae.data.files.streaming_writer import MatrixWriter, check_new_file
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import CellPass, eval_mode, plan_pass
from cellvae.inference.differential.posterior_pool import PosteriorPool, parts_of, sample_pool
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
from cellvae.inference.gene_list import gene_names, gene_positions
from cellvae.inference.likelihood.importance_options import ImportanceOptions, importance_options
from cellvae.inference.posterior_samples import sample_latent
from cellvae.inference.protocols import DecoderModel
from cellvae.inference.transform_batch import BatchChoice, batch_codes

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
    """Expression of each gene in each cell, as the decoder has it, without the noise of counting.

    Means are summed up as the draws are made: beside the result, memory holds one batch of cells.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with. Genes are matched by name.
    indices
        Cells asked for, by number, mask or name; None for all.
    transform_batch
        Batch that cells are decoded as if they came from, by name; several are averaged. None is
        the batch that each cell has.
    gene_list
        Genes asked for, in the order asked; None for all.
    library_size
        Size that expression is scaled to: 1 gives shares of the cell, 10,000 counts per 10,000.
        `"latent"` gives expected counts (before zero inflation) at the size of each cell. With size
        factors, expression is per unit of size.
    n_samples
        Draws of the latent of each cell.
    n_samples_overall
        Draws in all, each of a cell chosen at random with replacement: a sample of the cells as a
        population. Not together with `n_samples`.
    weights
        `"importance"` weights the draws of each cell by p(x, z) / q(z | x), which brings means
        closer to those of the true posterior; with `n_samples_overall`, each draw is one of 25
        candidates, chosen by weight. The memory for it does not grow with the cells, as that of
        :func:`get_importance_weights` does, which compares all draws with all cells.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether draws of a cell are averaged; otherwise all are given.
    return_numpy
        Whether the result is an array instead of a DataFrame; None for a DataFrame wherever the
        result has two dimensions.
    silent
        Whether no progress is shown.
    out
        File to be made (`.h5ad` or `.zarr`) into which the result is written batch by batch, for
        results that do not fit into memory. It holds an AnnData with the result as `X`.
    **importance_weighting_kwargs
        With `weights="importance"` and `n_samples_overall`, options of
        :func:`get_importance_weights` (`max_cells`, `truncation`, `n_mc_samples`,
        `n_mc_samples_per_pass`; a dictionary `importance_weighting_kwargs` of them as well): draws
        are then chosen by weights over all cells, as in scvi-tools, which takes far longer.

    Returns
    -------
    DataFrame [cells, genes] with their names, in the order asked for; with `return_mean=False` and
    several samples an array [samples, cells, genes]; with `n_samples_overall` a DataFrame
    [n_samples_overall, genes] in which a row has the name of the cell it was drawn from; with
    `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If an argument has a value that it cannot take, or the file is there already.
    """
    check_samples(n_samples, n_samples_overall, return_mean, return_numpy, out)
    check_library_size(library_size)
    check_weights(weights, n_samples, n_samples_overall, return_mean)
    by_population = population_weights(
        importance_weighting_kwargs, weights, n_samples_overall, to_file=out is not None
    )
    path = None if out is None else check_new_file(out)
    wanted = ExpressionRequest(
        batch_codes=batch_codes(model.registration, transform_batch),
        genes=gene_positions(model.registration.genes, gene_list),
        library_size=library_size,
        n_samples=n_samples,
        n_decoded=model.registration.n_genes,
        importance=weights == "importance",
    )
    asked = plan_pass(model, adata, indices, batch_size, silent=silent, counts=wanted.importance)
    if by_population is not None:
        assert n_samples_overall is not None
        pool = draw_population(model, adata, asked, n_samples_overall, by_population, batch_size)
        asked = asked._replace(cells=pool.cells)
    elif n_samples_overall is not None:
        chosen = torch.randint(len(asked.cells), (n_samples_overall,))
        asked = asked._replace(cells=asked.cells[chosen])
    genes = gene_names(model.registration.genes, wanted.genes)
    whole: Any = model.adata if adata is None else adata
    cells = whole.obs_names[asked.cells.numpy()]
    if path is not None:
        with MatrixWriter(path, cells, genes) as file, eval_mode(model):
            for positions, batch in asked.iter_batches():
                file.write(positions, mean_expression(model.module, batch, wanted).cpu().numpy())
        return path
    if n_samples > 1 and not return_mean:
        return expression_samples(model, asked, wanted, len(genes))
    values = np.empty((len(cells), len(genes)), dtype=np.float32)
    kept = torch.from_numpy(values)
    with eval_mode(model):
        parts = (
            (
                (at, mean_expression(model.module, batch, wanted))
                for at, batch in asked.iter_batches()
            )
            if by_population is None
            else expression_of_pool(model.module, pool, wanted)
        )
        for positions, part in parts:
            kept[positions] = part.cpu()
    if return_numpy:
        return values
    import pandas as pd

    return pd.DataFrame(values, index=cells, columns=genes, copy=False)


def population_weights(
    given: Mapping[str, Any], weights: str | None, n_samples_overall: int | None, *, to_file: bool
) -> ImportanceOptions | None:
    """Options of weights over a population; None where none are given.

    Raises
    ------
    InvalidOptionError
        If they would not be used, or the result goes to a file.
    UnknownOptionError
        If one of them is misspelt.
    """
    words = dict(given)
    nested = words.pop("importance_weighting_kwargs", None)
    known = [f.name for f in fields(ImportanceOptions)]
    # A misspelt argument of another name ends here, too.
    own = inspect.signature(get_normalized_expression).parameters
    check_kwargs(words, [*known, *list(own)[1:]], "get_normalized_expression()")
    options = importance_options(nested if nested and not words else words, weights)
    if options is not None and (n_samples_overall is None or to_file):
        raise InvalidOptionError(
            "Expected n_samples_overall, the draws of the population, and no file (out) with "
            f"importance_weighting_kwargs; got n_samples_overall={n_samples_overall!r}"
            f"{' and out' if to_file else ''}."
        )
    return options


def draw_population(
    model: DecoderModel,
    adata: AnnData | None,
    asked: CellPass,
    n_draws: int,
    options: ImportanceOptions,
    batch_size: int | None,
) -> PosteriorPool:
    """Draws of the cells of a pass, chosen by weights over all of them."""
    population = asked.cells.numpy()
    with eval_mode(model):
        pool = sample_pool(model.module, asked, [population], n_draws, importance=False)
        return resample_pool(model, adata, [population], pool, options, batch_size)


def expression_of_pool(
    module: Any, pool: PosteriorPool, wanted: ExpressionRequest
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Expression of draws, some of them at a time, [draws, genes]."""
    for draws, latent, batch in parts_of(pool, 0, wanted.n_decoded):
        single = latent._replace(
            sample=latent.sample.unsqueeze(0), log_library=latent.log_library.unsqueeze(0)
        )
        for _, values in iter_decoded(module, single, batch, wanted):
            yield draws, values[0]


def expression_samples(
    model: DecoderModel, asked: CellPass, wanted: ExpressionRequest, n_genes: int
) -> np.ndarray:
    """Expression for every draw, [samples, cells, genes]."""
    shape = (wanted.n_samples, len(asked.cells), n_genes)
    kept = torch.empty(shape, dtype=torch.float32)
    with eval_mode(model):
        for positions, batch in asked.iter_batches():
            latent = sample_latent(model.module, batch, wanted.n_samples)
            for samples, values in iter_decoded(model.module, latent, batch, wanted):
                kept[samples, positions] = values.cpu()
    return kept.numpy()
