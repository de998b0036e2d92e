"""Passes over cells in a given order, batch by batch."""

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
    """Batches of the cells in this order, each with its positions among them.

    Raises
    ------
    InvalidOptionError
        If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {batch_size}.")
    numbers = as_index_tensor(cells)
    for first in range(0, len(numbers), batch_size):
        chosen = numbers[first : first + batch_size]
        yield slice(first, first + len(chosen)), rows.take(chosen)


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
    """Results of a function for all cells, in their order, on the device it gives them on.

    Memory for all results is set aside once, so nothing is held twice.

    Parameters
    ----------
    function
        Takes a batch and gives a tensor, or a tuple or NamedTuple of tensors, with one entry
        for each cell along `dim`.
    rows
        Where the cells are.
    cells
        Numbers of the cells; they may repeat.
    batch_size
        Cells of a batch.
    dim
        Dimension of the cells in what `function` gives.

    Raises
    ------
    InvalidOptionError
        If there are no cells, or `batch_size` is below 1.
    """
    whole: Tensor | tuple[Tensor, ...] | None = None
    for positions, batch in iter_batches(rows, cells, batch_size):
        result = function(batch)
        if whole is None:
            whole = allocate_results(result, len(cells), dim)
        for part, kept in zip(as_tuple(result), as_tuple(whole), strict=True):
            kept.narrow(dim, positions.start, part.shape[dim]).copy_(part)
    if whole is None:
        raise InvalidOptionError("Expected at least one cell; got none.")
    return whole


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors of a result."""
    return (result,) if isinstance(result, Tensor) else result


def allocate_results(
    result: Tensor | tuple[Tensor, ...], n_cells: int, dim: int
) -> Tensor | tuple[Tensor, ...]:
    """Memory for the results of all cells, in the form that one batch has."""
    empty = []
    for part in as_tuple(result):
        shape = list(part.shape)
        shape[dim] = n_cells
        empty.append(part.new_empty(shape))
    if isinstance(result, Tensor):
        return empty[0]
    return tuple(empty) if type(result) is tuple else type(result)(*empty)
