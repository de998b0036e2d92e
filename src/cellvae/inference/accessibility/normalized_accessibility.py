"""Accessibility of regions in cells, computed batch by batch; sparse above a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.errors import InvalidOptionError
from cellvae.inference.accessibility.region_factors import RegionFactorModel, RegionFactorModule
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    feature_positions,
    gene_names,
)
from cellvae.inference.cell_pass import CellPass, plan_pass
from cellvae.inference.cell_results import (
    collect_matrix,
    named_matrix,
    names_of_cells,
    write_matrix,
)
from cellvae.inference.expression.mean_expression import select_genes
from cellvae.inference.expression.normalized_expression import get_normalized_expression
from cellvae.inference.output_features import region_names
from cellvae.inference.protocols import DecoderModel
from cellvae.inference.sharing.computation import compute_batches

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_normalized_accessibility(
    model: RegionFactorModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples_overall: int | None = None,
    region_list: Iterable[str] | None = None,
    transform_batch: BatchChoice = None,
    use_z_mean: bool = True,
    threshold: float | None = None,
    normalize_cells: bool = False,
    normalize_regions: bool = False,
    batch_size: int | None = None,
    return_numpy: bool = False,
    silent: bool = False,
    *,
    out: str | Path | None = None,
) -> pd.DataFrame | np.ndarray | sparse.csr_matrix | Path:
    """Probability that each region is accessible in each cell.

    Memory holds the result, which is sparse with `threshold`, and one batch of cells.

    Parameters
    ----------
    model
        Trained model of regions.
    adata
        Cells; None for those of the model. Regions are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples_overall
        Number of cells to draw from those requested, with replacement; None for each of them once.
    region_list
        Regions to return, in the requested order; None for all.
    transform_batch
        Batch that cells are decoded as if they came from, by name; several are averaged. None is
        the batch that each cell has.
    use_z_mean
        Whether the mean of the latent posterior is decoded; otherwise a draw from it.
    threshold
        Probabilities below it become 0, and the result is sparse; None for all probabilities.
    normalize_cells
        Whether probabilities are multiplied by the depth factor of the cell.
    normalize_regions
        Whether probabilities are multiplied by the factor of the region. With both, they are
        probabilities of detection.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_numpy
        Whether the result is an array, or with `threshold` a CSR matrix, in place of a DataFrame.
    silent
        Whether the progress bar is hidden.
    out
        New file (`.h5ad` or `.zarr`) that the result is written to batch by batch, as `X` of an
        AnnData. Not together with `threshold`.

    Returns
    -------
    DataFrame [cells, regions] with their names, in the requested order; its columns are sparse with
    `threshold`; with `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If regions or categories of `adata` are not those of the model.
    UnknownKeyError
        If a region or batch is not one of the model.
    InvalidOptionError
        If an argument has an invalid value, or the file exists.
    OutputError
        If the file cannot be written.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InvalidOptionError(f"Expected threshold between 0 and 1; got {threshold!r}.")
    check_at_least_one("n_samples_overall", n_samples_overall)
    path = None if out is None else check_new_file(out)
    if path is not None and threshold is not None:
        raise InvalidOptionError("Expected out without threshold, whose result is sparse.")
    codes = batch_codes(model.registration, transform_batch)
    names = region_names(model)
    region_positions = feature_positions(names, region_list, "region")
    needs_counts = not model.module.stored_sizes
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent, counts=needs_counts)
    if n_samples_overall is not None:
        drawn = torch.randint(len(cell_pass.cells), (n_samples_overall,))
        cell_pass = cell_pass._replace(cells=cell_pass.cells[drawn])
    regions = gene_names(names, region_positions)
    cells = names_of_cells(model, adata, cell_pass.cells)
    if normalize_regions and model.module.region_factors is None:
        raise InvalidOptionError(
            "Expected a model with region factors for normalize_regions=True; this one was made "
            "with region_factors=False."
        )

    def accessibility_of(module: RegionFactorModule, batch: Any) -> Tensor:
        """Accessibility of a batch of cells, [cells, regions]."""
        values = accessibility(module, batch, codes, use_z_mean, normalize_cells)
        if normalize_regions:
            assert module.region_factors is not None
            values = values * module.region_factors.sigmoid()
        return select_genes(values, region_positions)

    if path is not None:
        return write_matrix(model, cell_pass, accessibility_of, path, cells, regions)
    import pandas as pd

    if threshold is None:
        values = collect_matrix(model, cell_pass, accessibility_of)
        if return_numpy:
            return values
        return pd.DataFrame(values, index=cells, columns=regions, copy=False)
    matrix = threshold_to_csr(model, cell_pass, accessibility_of, threshold)
    if return_numpy:
        return matrix
    return pd.DataFrame.sparse.from_spmatrix(matrix, index=cells, columns=regions)


def accessibility(
    module: Any, batch: Any, codes: list[int | None], use_z_mean: bool, normalize_cells: bool
) -> Tensor:
    """Accessibility of all regions in a batch of cells, averaged over batches, [cells, regions]."""
    latent = module.encode(batch)
    if use_z_mean:
        latent = latent._replace(sample=module.transform(latent.posterior.loc))
    total: Tensor | None = None
    for code in codes:
        decoder_batch = batch if code is None else module.replace_batch(batch, code)
        part = module.decode_accessibility(latent, decoder_batch)
        total = part if total is None else total.add_(part)
    assert total is not None
    total = total / len(codes)
    return total * module.log_depth_factor(latent).exp() if normalize_cells else total


def threshold_to_csr(
    model: DecoderModel,
    cell_pass: CellPass,
    matrix_of: Callable[[Any, Any], Tensor],
    threshold: float,
) -> sparse.csr_matrix:
    """CSR matrix of the values that are not below a threshold; only one batch is dense."""
    from scipy import sparse

    matrices: dict[int, sparse.csr_matrix] = {}

    def store(positions: slice, values: Mapping[str, Tensor]) -> None:
        """Keep the rows of some cells."""
        part = values["X"]
        accessible = torch.where(part >= threshold, part, 0.0).cpu().numpy()
        matrices[positions.start] = sparse.csr_matrix(accessible)

    compute_batches(model, cell_pass, named_matrix(matrix_of), store)
    return sparse.vstack([matrices[start] for start in sorted(matrices)], format="csr")


class RegionBiasModule(Protocol):
    """A network whose decoder ends in a bias for each region."""

    @property
    def region_bias(self) -> Parameter:
        """Factor of each region, on the scale of a logarithm, [regions]."""
        ...


class RegionBiasModel(DecoderModel, Protocol):
    """A trained model of fragments in regions."""

    module: Any
    """Network that is `RegionBiasModule`."""


@check_arguments(only=INTEGERS)
def get_fragment_accessibility(
    model: RegionBiasModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    region_list: Iterable[str] | None = None,
    library_size: float | Literal["latent"] = 1.0,
    normalize_regions: bool = False,
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
    """Accessibility of each region in each cell, as a fraction of the fragments of the cell.

    Parameters
    ----------
    model
        Trained model of fragments.
    region_list
        Regions to return, in the requested order; None for all.
    normalize_regions
        Whether the factors of regions are included, which brings accessibility closer to the
        counts; without them, regions can be compared with each other.
    adata, indices, transform_batch, library_size, n_samples, n_samples_overall, weights, \
    batch_size, return_mean, return_numpy, silent, out, **importance_weighting_kwargs
        As in :func:`get_normalized_expression`.

    Returns
    -------
    DataFrame [cells, regions], or another type as for :func:`get_normalized_expression`.

    Raises
    ------
    NotTrainedError, DataMismatchError, UnknownKeyError, InvalidOptionError
        As :func:`get_normalized_expression` does.
    """
    model.check_trained()
    with nullcontext() if normalize_regions else ignore_region_bias(model.module):
        return get_normalized_expression(
            model,
            adata,
            indices,
            transform_batch,
            region_list,
            library_size,
            n_samples,
            n_samples_overall,
            weights,
            batch_size,
            return_mean,
            return_numpy,
            silent,
            out=out,
            **importance_weighting_kwargs,
        )


def get_fragment_factors(model: RegionBiasModel) -> np.ndarray:
    """Learned factor of each region, on the scale of a natural logarithm.

    Parameters
    ----------
    model
        Trained model of fragments.

    Returns
    -------
    Array [regions] in the order of the model.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    """
    model.check_trained()
    module: RegionBiasModule = model.module
    factors: np.ndarray = module.region_bias.detach().cpu().numpy()
    return factors


@contextmanager
def ignore_region_bias(module: RegionBiasModule) -> Iterator[None]:
    """Context in which all regions have the same factor."""
    learned = module.region_bias.data
    module.region_bias.data = torch.zeros_like(learned)
    try:
        yield
    finally:
        module.region_bias.data = learned
