"""Results for each cell, collected in memory or written to a file batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.files.streaming_writer import CellWriter, MatrixWriter
from cellvae.inference.cell_pass import CellPass
from cellvae.inference.sharing.computation import BatchValues, compute_batches
from cellvae.inference.sharing.share_cells import in_all_processes

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import EncoderModel


def names_of_cells(model: EncoderModel, adata: AnnData | None, cells: Tensor) -> pd.Index:
    """Names of some cells of an AnnData, or of the model's own for None."""
    source: Any = model.adata if adata is None else adata
    names: pd.Index = source.obs_names[cells.numpy()]
    return names


def collect_values(
    model: EncoderModel, cell_pass: CellPass, values_of: BatchValues, *, cells_dim: int = 0
) -> dict[str, NDArray[Any]]:
    """Values of all cells of a pass by name.

    Parameters
    ----------
    model
        Trained model.
    cell_pass
        Cells.
    values_of
        Function of a network and a batch: values by name, each [cells, ...].
    cells_dim
        Dimension of the cells in the result: 1 for [samples, cells, ...].
    """
    values: dict[str, NDArray[Any]] = {}

    def store(positions: slice, found: Mapping[str, Tensor]) -> None:
        """Copy values of some cells to their positions."""
        for name, tensor in found.items():
            array = tensor.cpu().numpy()
            if name not in values:
                shape = list(array.shape)
                shape[0] = len(cell_pass.cells)
                shape.insert(cells_dim, shape.pop(0))
                values[name] = np.empty(shape, array.dtype)
            np.moveaxis(values[name], cells_dim, 0)[positions] = array

    compute_batches(model, cell_pass, values_of, store)
    return values


def write_values(
    model: EncoderModel,
    adata: AnnData | None,
    cell_pass: CellPass,
    values_of: BatchValues,
    path: Path,
    *,
    categories: Mapping[str, pd.Index] | None = None,
) -> Path:
    """Write values of all cells of a pass to an AnnData file, and return its path.

    Parameters
    ----------
    model, adata
        Model, and the AnnData that the cells are of; None for the model's own.
    cell_pass
        Cells.
    values_of
        Function of a network and a batch. Values with one number for each cell become columns of
        `obs`, others entries of `obsm`.
    path
        File, as :func:`check_new_file` returns it.
    categories
        Categories of columns whose values are codes.
    """
    names = names_of_cells(model, adata, cell_pass.cells)
    write_results(model, cell_pass, values_of, CellWriter(path, names, categories))
    return path


def write_matrix(
    model: EncoderModel,
    cell_pass: CellPass,
    matrix_of: Callable[[Any, Any], Tensor],
    path: Path,
    cells: pd.Index,
    columns: Iterable[str],
) -> Path:
    """Write a matrix, [cells, columns], to `X` of an AnnData file, and return its path.

    Parameters
    ----------
    model
        Model that computes it.
    cell_pass
        Cells.
    matrix_of
        Function of a network and a batch: rows of the matrix.
    path
        File, as :func:`check_new_file` returns it.
    cells, columns
        Names.
    """
    writer = MatrixWriter(path, cells, [*columns])
    write_results(model, cell_pass, named_matrix(matrix_of), writer)
    return path


def collect_matrix(
    model: EncoderModel, cell_pass: CellPass, matrix_of: Callable[[Any, Any], Tensor]
) -> NDArray[Any]:
    """Matrix of all cells of a pass, [cells, columns]."""
    return collect_values(model, cell_pass, named_matrix(matrix_of))["X"]


def named_matrix(matrix_of: Callable[[Any, Any], Tensor]) -> BatchValues:
    """Function of a network and a batch that gives a matrix its name."""

    @functools.wraps(matrix_of)
    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        return {"X": matrix_of(module, batch)}

    return values_of


def write_results(
    model: EncoderModel,
    cell_pass: CellPass,
    values_of: BatchValues,
    writer: CellWriter | MatrixWriter,
) -> None:
    """Write results to a file, which the first of several processes does."""
    with in_all_processes() as is_first, writer if is_first else nullcontext() as file:

        def store(positions: slice, found: Mapping[str, Tensor]) -> None:
            """Write values of some cells."""
            arrays = {name: values.cpu().numpy() for name, values in found.items()}
            if isinstance(file, MatrixWriter):
                file.write(positions, arrays.pop("X"), arrays)
            elif file is not None:
                file.write(positions, arrays)

        compute_batches(model, cell_pass, values_of, store, first_only=True)
