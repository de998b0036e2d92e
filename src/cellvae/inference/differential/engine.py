"""Engine of all differential tests: populations, posterior samples, test, table.

A test of another quantity (expression, accessibility, proteins) gives a :class:`TestSpec` and a
function that makes a table of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.setup.categories import Scalar
from cellvae.data.storage.column import lacks_counts
from cellvae.inference.arguments import batch_codes
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.differential.arguments import CellGroups, PosteriorSampler
from cellvae.inference.differential.groups import (
    Comparison,
    Populations,
    drop_outliers,
    populations_of_cells,
    populations_of_column,
)
from cellvae.inference.differential.hypothesis import TestSpec, run_test
from cellvae.inference.differential.posterior_pool import (
    PosteriorPool,
    decode_population,
    expected_counts,
    sample_pool,
)
from cellvae.inference.differential.quantity import Quantity, first_output
from cellvae.inference.differential.raw_means import RawMeans, raw_count_means
from cellvae.inference.differential.resampling import resample_pool
from cellvae.inference.differential.table import add_group_columns
from cellvae.inference.progress import with_progress
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TestColumns: TypeAlias = "Mapping[str, NDArray[Any] | float]"
"""Results of one test by name: an array [genes] each, or one number."""
TableFunction: TypeAlias = "Callable[[TestColumns, RawMeans | None], pd.DataFrame]"
"""Table of one comparison, from results of the test and means of the counts of both populations."""


def differential(
    model: DecoderModel,
    adata: AnnData | None,
    groups: CellGroups,
    sampler: PosteriorSampler,
    test: TestSpec,
    make_table: TableFunction,
    *,
    raw_counts: bool,
    quantity: Quantity | None = None,
) -> pd.DataFrame:
    """Tables of all comparisons, one below the other.

    1. Resolve the populations, and the pairs of them to compare.
    2. Sample the posteriors of all populations in one pass over their cells.
    3. For each comparison: decode the samples of both populations, test them, make a table.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    groups
        Which cells are compared.
    sampler
        How their posteriors are sampled.
    test
        What is tested for each gene.
    make_table
        Makes the table of one comparison. It is given means of the counts with `raw_counts` only.
    raw_counts
        Whether tables have statistics of raw counts, which take a pass over all compared cells.
    quantity
        Values that are compared; None for the normalized values of the first output.

    Raises
    ------
    NotTrainedError, DataMismatchError, UnknownKeyError, InvalidOptionError
        As :func:`differential_expression` does.
    """
    import pandas as pd

    quantity = quantity or first_output(model)
    estimates = test.estimates_pseudocount
    counts = raw_counts or (estimates and not lacks_counts(model.rows_for(adata)))
    cell_pass = plan_pass(
        model,
        adata,
        None,
        sampler.batch_size,
        silent=sampler.silent,
        counts=counts or sampler.importance,
    )
    codes: tuple[Tensor | None, Tensor | None] = (None, None)
    if sampler.batch_correction:
        codes = sample_batch_codes(
            model, sampler.batchid1, sampler.batchid2, sampler.n_samples_overall
        )
    populations = resolve_populations(model, adata, groups, sampler.batch_size)
    tables = []
    with inference_mode(model):
        means = (
            raw_count_means(quantity.measure_counts, cell_pass, populations.cells)
            if counts
            else None
        )
        pool = sample_populations(model, adata, cell_pass, populations.cells, sampler)
        for comparison, first, second in iter_comparisons(
            model, quantity, pool, populations, codes, sampler.silent
        ):
            pair = [comparison.first, comparison.second]
            mean_counts = None
            if means is not None:
                mean_counts = (means.mean[pair[0]], means.mean[pair[1]])
            elif estimates:
                mean_counts = (
                    expected_counts(quantity, pool, pair[0]),
                    expected_counts(quantity, pool, pair[1]),
                )
            columns = {
                name: value.cpu().numpy() if isinstance(value, Tensor) else value
                for name, value in run_test(test, first, second, mean_counts).items()
            }
            raw_means = means.of_populations(pair) if means is not None and raw_counts else None
            table = make_table(columns, raw_means)
            if comparison.names is not None:
                table = add_group_columns(table, comparison.names)
            tables.append(table)
    return pd.concat(tables)


def resolve_populations(
    model: DecoderModel, adata: AnnData | None, groups: CellGroups, batch_size: int | None
) -> Populations:
    """Indices of the cells of each population, and which populations are compared."""
    cells: Any = model.adata if adata is None else adata
    populations = (
        populations_of_cells(cells, groups.idx1, groups.idx2)
        if groups.groupby is None
        else populations_of_column(cells, groups.groupby, groups.group1, groups.group2)
    )
    if groups.filter_outlier_cells:
        inliers = drop_outliers(model, adata, populations.cells, batch_size)
        return populations._replace(cells=inliers)
    return populations


def sample_populations(
    model: DecoderModel,
    adata: AnnData | None,
    cell_pass: Any,
    populations: list[NDArray[np.int64]],
    sampler: PosteriorSampler,
) -> PosteriorPool:
    """Posterior samples of all populations, from one pass over their cells."""
    options = sampler.population_options
    within_cells = sampler.importance and options is None
    pool = sample_pool(
        model.module, cell_pass, populations, sampler.n_samples_overall, importance=within_cells
    )
    if options is None:
        return pool
    return resample_pool(model, adata, populations, pool, options, sampler.batch_size)


def sample_batch_codes(
    model: DecoderModel,
    batchid1: Sequence[Scalar] | None,
    batchid2: Sequence[Scalar] | None,
    n_samples: int,
) -> tuple[Tensor, Tensor]:
    """Batch that each sample of a first and of a second population is decoded for, [samples, 1].

    Samples are divided evenly among the batches of their population. Populations with the same
    batches are paired batch by batch, others at random.
    """
    first_batches = known_batch_codes(model, batchid1)
    second_batches = known_batch_codes(model, batchid2)
    samples = torch.arange(n_samples)
    first, second = (
        torch.tensor(codes)[samples * len(codes) // n_samples]
        for codes in (first_batches, second_batches)
    )
    if first_batches != second_batches:
        second = second[torch.randperm(n_samples)]
    return first.unsqueeze(-1).to(model.device), second.unsqueeze(-1).to(model.device)


def known_batch_codes(model: DecoderModel, batches: Sequence[Scalar] | None) -> list[int]:
    """Codes of batches, each once, in ascending order; of all batches of the model for None."""
    if batches is None:
        batches = model.registration.categories("batch")
    codes = batch_codes(model.registration, batches)
    return sorted({code for code in codes if code is not None})


def iter_comparisons(
    model: DecoderModel,
    quantity: Quantity,
    pool: PosteriorPool,
    populations: Populations,
    codes: tuple[Tensor | None, Tensor | None],
    silent: bool,
) -> Iterator[tuple[Comparison, Tensor, Tensor]]:
    """Comparisons, each with the decoded samples of its populations, [samples, genes].

    A second population that follows itself is decoded once.
    """
    decoded: int | None = None
    second = torch.empty(0)
    steps = ((slice(i, i + 1), pair) for i, pair in enumerate(populations.comparisons))
    for _, comparison in with_progress(steps, len(populations.comparisons), silent=silent):
        if decoded != comparison.second:
            # The old samples are freed before the new ones are allocated.
            second = torch.empty(0)
            second = decode_population(model.module, quantity, pool, comparison.second, codes[1])
            decoded = comparison.second
        first = decode_population(model.module, quantity, pool, comparison.first, codes[0])
        yield comparison, first, second
