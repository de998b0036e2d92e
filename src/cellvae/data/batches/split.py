"""Split of the cells of a data set into training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from cellvae.core.log import logger
from cellvae.data.batches.indexing import Cells, cell_indices
from cellvae.errors import InvalidDataError, InvalidOptionError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

TRAIN_SIZE = 0.9
"""Fraction of training cells by default."""
MAX_DROPPED_CELLS = 3
"""A last batch of fewer cells leaves the training cells if `train_size` is the default."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Indices of the training, validation and test cells; no cell is in two of them."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_cells(
    n_cells: int,
    *,
    train_size: float | None = None,
    validation_size: float | None = None,
    shuffle: bool = True,
    seed: int,
    batch_size: int = 128,
    drop_last: bool = False,
    external_indexing: Sequence[Cells] | None = None,
    adata: AnnData | None = None,
) -> Split:
    """Split of cells as in scvi-tools: the same cells for the same seed.

    Parameters
    ----------
    n_cells
        Number of cells of the data set.
    train_size
        Fraction of training cells, above 0 and at most 1. By default it is 0.9, and a last batch
        of only 1 or 2 cells is removed from the training cells.
    validation_size
        Fraction of validation cells, from 0 to below 1; by default all other cells.
    shuffle
        Whether the split is random; otherwise the first cells are for validation, the next for
        training.
    seed
        Seed of numpy's legacy generator, from 0 to 2^32 - 1.
    batch_size
        Cells per training batch.
    drop_last
        Whether training leaves out a last batch that is not full.
    external_indexing
        Cells for training, validation and test, as indices, masks, slices or names; the last two
        may be left out. Nothing is random then, and a cell in none of them is not used.
    adata
        AnnData for names of cells in `external_indexing`.

    Raises
    ------
    InvalidOptionError
        If a fraction or the seed is out of range, if the given cells overlap, repeat, or do not
        exist, or if no cell is left to train on.
    """
    if external_indexing is not None:
        return split_from_indices(n_cells if adata is None else adata, external_indexing)
    n_train, n_validation = split_sizes(n_cells, train_size, validation_size)
    if train_size is None and not drop_last:
        n_train, n_validation = drop_small_batch(n_train, n_validation, batch_size)
    order = np.arange(n_cells, dtype=np.int64)
    if shuffle:
        if not 0 <= seed < 2**32:
            raise InvalidOptionError(f"Expected a seed from 0 to {2**32 - 1}; got {seed}.")
        order = np.random.RandomState(seed).permutation(n_cells).astype(np.int64)
    end = n_validation + n_train
    return Split(train=order[n_validation:end], validation=order[:n_validation], test=order[end:])


def split_sizes(
    n_cells: int, train_size: float | None, validation_size: float | None
) -> tuple[int, int]:
    """Number of training cells (rounded up) and of validation cells (rounded down, or the rest)."""
    if n_cells < 1:
        raise InvalidDataError(f"Expected at least one cell to split; got {n_cells}.")
    fraction = TRAIN_SIZE if train_size is None else train_size
    if not 0 < fraction <= 1:
        raise InvalidOptionError(f"Expected a train_size above 0 and at most 1; got {fraction}.")
    n_train = ceil(fraction * n_cells)
    if validation_size is None:
        return n_train, n_cells - n_train
    if not 0 <= validation_size < 1:
        raise InvalidOptionError(
            f"Expected a validation_size from 0 to below 1; got {validation_size}."
        )
    if fraction + validation_size > 1:
        raise InvalidOptionError(
            f"Expected train_size and validation_size to add up to at most 1; got {fraction} + "
            f"{validation_size} = {fraction + validation_size:g}."
        )
    return n_train, floor(n_cells * validation_size)


def drop_small_batch(n_train: int, n_validation: int, batch_size: int) -> tuple[int, int]:
    """Number of training and validation cells without a last training batch of 1 or 2 cells.

    These cells move to validation, or to the test cells if there is no validation.
    """
    rest = n_train % batch_size
    if not 0 < rest < MAX_DROPPED_CELLS or rest == n_train:
        return n_train, n_validation
    if n_validation:
        logger.info("Moved %d training cells, a batch too small, to validation.", rest)
        return n_train - rest, n_validation + rest
    logger.info("Moved %d training cells, a batch too small, to the test cells.", rest)
    return n_train - rest, 0


def split_from_indices(cells: AnnData | int, parts: Sequence[Cells]) -> Split:
    """Split from the cells that the user selected, of an AnnData or of a number of cells."""
    n_cells = cells if isinstance(cells, int) else int(cells.n_obs)
    if isinstance(parts, np.ndarray) and (parts.ndim == 2 or parts.dtype == object):
        parts = [*parts]
    if isinstance(parts, (str, bytes)) or not isinstance(parts, Sequence) or len(parts) > 3:
        raise InvalidOptionError(
            "Expected external_indexing as [training cells, validation cells, test cells], the "
            f"last two optional; got {parts!r:.100}."
        )
    names = ("training", "validation", "test")
    empty = np.zeros(0, dtype=np.int64)
    selected = [empty if part is None else cell_indices(part, cells) for part in parts]
    train, validation, test = [*selected, empty, empty, empty][:3]
    part_of_cell = np.full(n_cells, -1)
    for part, indices in enumerate((train, validation, test)):
        repeated = np.flatnonzero(np.bincount(indices, minlength=n_cells) > 1)
        if len(repeated):
            raise InvalidOptionError(
                f"Expected each {names[part]} cell once in external_indexing; got "
                f"{len(repeated):,} repeated: {quote_names([*repeated])}."
            )
        shared = indices[part_of_cell[indices] >= 0]
        if len(shared):
            raise InvalidOptionError(
                f"Expected no cell twice in external_indexing; got {len(shared):,} both for "
                f"{names[part_of_cell[shared[0]]]} and {names[part]}: {quote_names([*shared])}."
            )
        part_of_cell[indices] = part
    if not len(train):
        raise InvalidOptionError("Expected training cells in external_indexing; got none.")
    return Split(train=train, validation=validation, test=test)
