"""Checks of an AnnData before any model sees it: names, and every single count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np

from cellvae.core.log import warn
from cellvae.data.setup.keys import check_is_anndata
from cellvae.data.storage.chunks import Chunk, iter_chunks
from cellvae.errors import DataWarning, InvalidDataError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.count_matrix import CountMatrix

LARGEST_COUNT = 1e15
"""Largest count: sums and squares of more would not be finite in single precision."""
MAX_NAMED = 3
"""Places named in a message for each kind of wrong value."""


@final
@dataclass
class BadValues:
    """Wrong values of one kind: how many, and the first cells and genes."""

    name: str
    n: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)

    def add(self, piece: Chunk, found: NDArray[np.bool_]) -> None:
        """Count the values found in a piece, and keep the first places."""
        n = int(np.count_nonzero(found))
        if n and len(self.places) < MAX_NAMED:
            cells, genes = piece.coordinates(found)
            order = np.lexsort((genes, cells))[:MAX_NAMED]
            more = zip(cells[order].tolist(), genes[order].tolist(), strict=True)
            self.places = sorted([*self.places, *more])[:MAX_NAMED]
        self.n += n

    def describe(self, cells: Sequence[object], genes: Sequence[object]) -> str:
        """Number of the values and the first places by name."""
        plural = "" if self.n == 1 else "s"
        places = "; ".join(f"cell '{cells[i]}', gene '{genes[j]}'" for i, j in self.places)
        return f"{self.n:,} {self.name} value{plural}, first in {places}"


@final
class CountSummary:
    """What a look at every count has found.

    `integers` says whether all values are whole numbers, `binary` whether none is above one,
    `n_values` how many were stored, `filled` which cells have any count, [cells].
    """

    def __init__(self, n_cells: int) -> None:
        self.integers = True
        self.largest = 0.0
        self.n_values = 0
        self.filled = np.zeros(n_cells, dtype=bool)
        self.wrong = (
            BadValues("NaN"),
            BadValues("infinite"),
            BadValues("negative"),
            BadValues(f"too large (above {LARGEST_COUNT:.0e})"),
        )

    def update(self, piece: Chunk) -> None:
        """Look at every value of a piece."""
        values = piece.values
        self.n_values += values.size
        if not values.size:
            return
        kind, largest = values.dtype.kind, float(values.max())
        with np.errstate(invalid="ignore"):
            if kind == "f":
                # One comparison each for the least and the greatest; NaN fails both.
                if not (values.min() >= 0 and largest <= LARGEST_COUNT):
                    self.record_bad_values(piece)
                self.integers = self.integers and bool((np.rint(values) == values).all())
            elif kind == "i" and values.min() < 0:
                self.wrong[2].add(piece, values < 0)
            if kind in "iu" and largest > LARGEST_COUNT:
                self.wrong[3].add(piece, values > LARGEST_COUNT)
            self.largest = max(self.largest, largest)
            piece.mark_nonempty(self.filled)

    @property
    def binary(self) -> bool:
        """Whether the values say yes or no, not how many."""
        return self.integers and self.largest <= 1

    def record_bad_values(self, piece: Chunk) -> None:
        """Keep what is wrong in a piece of floating point numbers."""
        values: NDArray[Any] = piece.values
        finite = np.isfinite(values)
        found = (
            np.isnan(values),
            np.isinf(values),
            finite & (values < 0),
            finite & (values.astype(np.float64) > LARGEST_COUNT),
        )
        for wrong, where in zip(self.wrong, found, strict=True):
            wrong.add(piece, where)


def check_names(adata: AnnData) -> None:
    """Refuse an AnnData without cells or genes, or with two genes of one name.

    Raises
    ------
    InvalidDataError
        If so, naming the genes.
    """
    check_is_anndata(adata)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InvalidDataError(
            f"Expected at least one cell and one gene; got {adata.n_obs:,} cells and "
            f"{adata.n_vars:,} genes. Check the filters that the AnnData went through."
        )
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise InvalidDataError(
            f"Expected different names for all genes; got {len(twice):,} names more than once: "
            f"{quote_names([*twice])}. Make them different with adata.var_names_make_unique()."
        )


def check_counts(matrix: CountMatrix, adata: AnnData) -> CountSummary:
    """Look at every count of a matrix of an AnnData.

    Values that are not whole numbers are recorded, not refused.

    Raises
    ------
    InvalidDataError
        If a count is NaN, infinite, negative or above 1e15, naming the first cells and genes.

    Warns
    -----
    DataWarning
        If cells have no counts, naming the first.
    """
    facts = CountSummary(adata.n_obs)
    for piece in iter_chunks(matrix):
        facts.update(piece)
    wrong = [kind for kind in facts.wrong if kind.n]
    if wrong:
        cells, genes = adata.obs_names, adata.var_names
        found = "; and ".join(kind.describe(cells, genes) for kind in wrong)
        raise InvalidDataError(
            f"Expected finite counts of 0 or more in {matrix.where}; got {found}. {matrix.advice}"
        )
    n_empty = int(np.count_nonzero(~facts.filled))
    if n_empty:
        warn(
            f"Expected counts in every cell; got {n_empty:,} of {adata.n_obs:,} cells without "
            f"any in {matrix.where}: {quote_names([*adata.obs_names[~facts.filled]])}. They tell "
            "the model nothing; leave them out, e.g. with "
            "scanpy.pp.filter_cells(adata, min_counts=1).",
            DataWarning,
        )
    return facts
