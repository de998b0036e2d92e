"""Iteration over cells in batches, and collection of the results for all cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.batches.shuffling import as_index_tensor
from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from cellvae.contracts import B, Rows
    from cellvae.core.shapes import CellNumbers

Results = TypeVar("Results", bound=tuple[Any, ...])


def iter_batches(
    rows: Rows[B], cells: CellNumbers | NDArray[np.int64], batch_size: int
) -> Iterator[tuple[slice, B]]:
    """Batches of the cells in this order, each with the slice of its positions in `cells`.

    Raises
    ------
    InvalidOptionError
        If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {batch_size}.")
    indices = as_index_tensor(cells)
    for first in range(0, len(indices), batch_size):
        batch_cells = indices[first : first + batch_size]
        yield slice(first, first + len(batch_cells)), rows.take(batch_cells)


@overload
def map_batches(
    function: Callable[[B], Tensor],
    rows: Rows[B],
    cells: CellNumbers | NDArray[np.int64],
    batch_size: int,
    *,
    dim: int = 0,
) -> Tensor: ...


@overload
def map_batches(
    function: Callable[[B], Results],
    rows: Rows[B],
    cells: CellNumbers | NDArray[np.int64],
    batch_size: int,
    *,
    dim: int = 0,
) -> Results: ...


def map_batches(
    function: Callable[[B], Tensor | tuple[Tensor, ...]],
    rows: Rows[B],
    cells: CellNumbers | NDArray[np.int64],
    batch_size: int,
    *,
    dim: int = 0,
) -> Tensor | tuple[Tensor, ...]:
    """Results of a function for all cells, in their order, on the device of its results.

    Memory for all results is allocated once, so they are never in memory twice.

    Parameters
    ----------
    function
        Function of a batch that returns a tensor, or a tuple or NamedTuple of tensors, with one
        entry for each cell along `dim`.
    rows
        Rows of the data set.
    cells
        Indices of the cells; they may repeat.
    batch_size
        Cells per batch.
    dim
        Dimension of the cells in the results of `function`.

    Raises
    ------
    InvalidOptionError
        If there are no cells, or `batch_size` is below 1.
    """
    results: Tensor | tuple[Tensor, ...] | None = None
    for positions, batch in iter_batches(rows, cells, batch_size):
        result = function(batch)
        if results is None:
            results = allocate_results(result, len(cells), dim)
        for part, whole in zip(as_tuple(result), as_tuple(results), strict=True):
            whole.narrow(dim, positions.start, part.shape[dim]).copy_(part)
    if results is None:
        raise InvalidOptionError("Expected at least one cell; got none.")
    return results


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Result as a tuple of tensors."""
    return (result,) if isinstance(result, Tensor) else result


def allocate_results(
    result: Tensor | tuple[Tensor, ...], n_cells: int, dim: int
) -> Tensor | tuple[Tensor, ...]:
    """Uninitialised memory for the results of all cells, shaped like the result of one batch."""
    empty = []
    for part in as_tuple(result):
        shape = list(part.shape)
        shape[dim] = n_cells
        empty.append(part.new_empty(shape))
    if isinstance(result, Tensor):
        return empty[0]
    return tuple(empty) if type(result) is tuple else type(result)(*empty)
