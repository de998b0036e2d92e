"""Results for each cell, collected in memory or written to a file batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.files.streaming_writer import CellWriter, MatrixWriter
from cellvae.inference.cell_pass import CellPass, inference_mode

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import EncoderModel

BatchValues: TypeAlias = "Callable[[Any], Mapping[str, Tensor]]"
"""Function of a batch of cells: values by name, each [cells, ...]."""


def names_of_cells(model: EncoderModel, adata: AnnData | None, cells: Tensor) -> pd.Index:
    """Names of some cells of an AnnData, or of the model's own for None."""
    source: Any = model.adata if adata is None else adata
    names: pd.Index = source.obs_names[cells.numpy()]
    return names


def collect_values(
    model: EncoderModel, cell_pass: CellPass, values_of: BatchValues
) -> dict[str, NDArray[Any]]:
    """Values of all cells of a pass by name, each [cells, ...]."""
    values: dict[str, NDArray[Any]] = {}
    with inference_mode(model):
        for positions, batch in cell_pass.iter_batches():
            for name, tensor in values_of(batch).items():
                array = tensor.cpu().numpy()
                if name not in values:
                    shape = (len(cell_pass.cells), *array.shape[1:])
                    values[name] = np.empty(shape, array.dtype)
                values[name][positions] = array
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
        Function of a batch. Values with one number for each cell become columns of `obs`, others
        entries of `obsm`.
    path
        File, as :func:`check_new_file` returns it.
    categories
        Categories of columns whose values are codes.
    """
    names = names_of_cells(model, adata, cell_pass.cells)
    with CellWriter(path, names, categories) as file, inference_mode(model):
        for positions, batch in cell_pass.iter_batches():
            found = values_of(batch)
            file.write(positions, {name: values.cpu().numpy() for name, values in found.items()})
    return path


def collect_parts(
    model: EncoderModel, parts: Iterable[tuple[slice, Tensor]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Matrix, [cells, columns], from its rows with their positions, in inference mode."""
    matrix = np.empty(shape, dtype=np.float32)
    with inference_mode(model):
        for positions, part in parts:
            matrix[positions] = part.cpu().numpy()
    return matrix


def write_matrix(
    model: EncoderModel,
    parts: Iterable[tuple[slice, Tensor]],
    path: Path,
    cells: pd.Index,
    columns: Iterable[str],
) -> Path:
    """Write a matrix, [cells, columns], to `X` of an AnnData file, and return its path.

    Parameters
    ----------
    model
        Model that computes it.
    parts
        Rows with their positions, which are computed in inference mode.
    path
        File, as :func:`check_new_file` returns it.
    cells, columns
        Names.
    """
    with MatrixWriter(path, cells, [*columns]) as file, inference_mode(model):
        for positions, part in parts:
            file.write(positions, part.cpu().numpy())
    return path
