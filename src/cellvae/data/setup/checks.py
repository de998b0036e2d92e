"""Checks of an AnnData before a model reads it: names of genes, and all counts."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np

from cellvae.core.log import warn
from cellvae.core.progress import cell_bar
from cellvae.data.files.remembered_results import read_result, remember_result
from cellvae.data.setup.tables.cells import check_is_table
from cellvae.data.storage.chunks import Chunk, iter_chunks, iter_chunks_of_files
from cellvae.data.storage.disk.loaded_rows import group_readers
from cellvae.data.storage.disk.stored_reader import StoredReader
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.errors import DataWarning, InvalidDataError, quote_names
from cellvae.settings import settings

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.count_matrix import CountMatrix

LARGEST_COUNT = 1e15
"""Largest allowed count: sums and squares of larger ones overflow in single precision."""
MAX_NAMED = 3
"""Positions that a message names for each type of invalid value."""


@final
@dataclass
class BadValues:
    """Invalid values of one type, such as NaN: their number, and the first cells and genes."""

    name: str
    n: int = 0
    positions: list[tuple[int, int]] = field(default_factory=list)

    def add(self, chunk: Chunk, mask: NDArray[np.bool_]) -> None:
        """Count the values of a chunk that a mask selects, and record the first positions."""
        n = int(np.count_nonzero(mask))
        if n and len(self.positions) < MAX_NAMED:
            cells, genes = chunk.coordinates(mask)
            order = np.lexsort((genes, cells))[:MAX_NAMED]
            new = zip(cells[order].tolist(), genes[order].tolist(), strict=True)
            self.positions = sorted([*self.positions, *new])[:MAX_NAMED]
        self.n += n

    def describe(self, cells: Sequence[object], features: Sequence[object], noun: str) -> str:
        """Number of the values, and the names of the first cells and features."""
        plural = "" if self.n == 1 else "s"
        positions = "; ".join(
            f"cell '{cells[i]}', {noun} '{features[j]}'" for i, j in self.positions
        )
        return f"{self.n:,} {self.name} value{plural}, first in {positions}"


@final
class CountSummary:
    """Result of the check of all counts of a matrix.

    `integers` is true if all values are integers, `binary` if also none is above 1, `n_values` is
    the number of stored values, `nonempty` is true for cells with counts, [cells].
    """

    def __init__(self, n_cells: int) -> None:
        self.integers = True
        self.largest = 0.0
        self.n_values = 0
        self.nonempty = np.zeros(n_cells, dtype=bool)
        self.bad_values = (
            BadValues("NaN"),
            BadValues("infinite"),
            BadValues("negative"),
            BadValues(f"too large (above {LARGEST_COUNT:.0e})"),
        )

    def update(self, chunk: Chunk) -> None:
        """Check the values of a chunk."""
        values = chunk.values
        self.n_values += values.size
        if not values.size:
            return
        dtype_kind, largest = values.dtype.kind, float(values.max())
        with np.errstate(invalid="ignore"):
            if dtype_kind == "f":
                # Minimum and maximum are enough: NaN fails both comparisons.
                if not (values.min() >= 0 and largest <= LARGEST_COUNT):
                    self.record_bad_values(chunk)
                self.integers = self.integers and bool((np.rint(values) == values).all())
            elif dtype_kind == "i" and values.min() < 0:
                self.bad_values[2].add(chunk, values < 0)
            if dtype_kind in "iu" and largest > LARGEST_COUNT:
                self.bad_values[3].add(chunk, values > LARGEST_COUNT)
            self.largest = max(self.largest, largest)
            chunk.mark_nonempty(self.nonempty)

    @property
    def binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return self.integers and self.largest <= 1

    def record_bad_values(self, chunk: Chunk) -> None:
        """Record the invalid values of a chunk of floating point numbers."""
        values: NDArray[Any] = chunk.values
        finite = np.isfinite(values)
        masks = (
            np.isnan(values),
            np.isinf(values),
            finite & (values < 0),
            finite & (values.astype(np.float64) > LARGEST_COUNT),
        )
        for bad_values, mask in zip(self.bad_values, masks, strict=True):
            bad_values.add(chunk, mask)

    def to_json(self) -> dict[str, Any]:
        """JSON object, without the bad values."""
        return {
            "n_cells": len(self.nonempty),
            "integers": self.integers,
            "largest": self.largest,
            "n_values": self.n_values,
            "nonempty": b64encode(np.packbits(self.nonempty).tobytes()).decode("ascii"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CountSummary:
        """Summary from its JSON object, of counts without bad values."""
        summary = cls(int(values["n_cells"]))
        summary.integers = bool(values["integers"])
        summary.largest = float(values["largest"])
        summary.n_values = int(values["n_values"])
        bits = np.frombuffer(b64decode(values["nonempty"]), dtype=np.uint8)
        summary.nonempty = np.unpackbits(bits, count=len(summary.nonempty)).astype(bool)
        return summary


def summarize_counts(matrix: CountMatrix, n_cells: int) -> CountSummary:
    """Check all counts of a matrix; the result for counts in files is remembered.

    Files are checked in one pass with a progress bar, and again only if they were changed.
    """
    if isinstance(matrix.values, JoinedMatrix):
        return summarize_files([StoredReader(matrix)], n_cells, matrix.where)[0]
    summary = CountSummary(n_cells)
    for chunk in iter_chunks(matrix):
        summary.update(chunk)
    return summary


def summarize_files(
    readers: Sequence[StoredReader], n_cells: int, where: str
) -> list[CountSummary]:
    """Check all counts of matrices that share cells of the same files, in one pass over them."""
    keys = [reader.signature() for reader in readers]
    known = [read_result(key) for key in keys]
    found = [
        CountSummary.from_json(values) if values and values.get("n_cells") == n_cells else None
        for values in known
    ]
    pending = [number for number, summary in enumerate(found) if summary is None]
    new = [CountSummary(n_cells) for _ in pending]
    if not pending:
        return [summary for summary in found if summary is not None]
    with cell_bar(n_cells, "Checking counts", silent=not settings.progress_bar) as bar:
        for number, chunk in iter_chunks_of_files([readers[i] for i in pending], where):
            new[number].update(chunk)
            bar.update(chunk.n_major if number == 0 else 0)
    for i, summary in zip(pending, new, strict=True):
        if not any(values.n for values in summary.bad_values):
            remember_result(keys[i], summary.to_json())
    checked = iter(new)
    return [next(checked) if summary is None else summary for summary in found]


def summarize_together(matrices: Sequence[CountMatrix], n_cells: int) -> None:
    """Check the counts of matrices that share cells of the same files in one pass over them.

    The results are remembered for the check of each matrix. Others are left to that check.
    """
    stored = [matrix for matrix in matrices if isinstance(matrix.values, JoinedMatrix)]
    readers = {str(number): StoredReader(matrix) for number, matrix in enumerate(stored)}
    for names in group_readers(readers):
        if len(names) > 1:
            where = stored[int(names[0])].where
            summarize_files([readers[name] for name in names], n_cells, where)


def find_nonempty_cells(matrix: CountMatrix, n_cells: int) -> NDArray[np.bool_]:
    """Whether each cell has a count above zero, [cells]."""
    if isinstance(matrix.values, JoinedMatrix):
        return summarize_counts(matrix, n_cells).nonempty
    nonempty = np.zeros(n_cells, dtype=bool)
    for chunk in iter_chunks(matrix):
        if chunk.values.size:
            chunk.mark_nonempty(nonempty)
    return nonempty


def check_names(adata: AnnData) -> None:
    """Raise if an AnnData has no cells or no genes, or two genes of one name.

    Raises
    ------
    InvalidDataError
        If so; the message names the genes.
    """
    check_is_table(adata)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InvalidDataError(
            f"Expected at least one cell and one gene; got {adata.n_obs:,} cells and "
            f"{adata.n_vars:,} genes. Check the filters that the AnnData went through."
        )
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise InvalidDataError(
            f"Expected different names for all genes; got {len(repeated):,} names more than once: "
            f"{quote_names([*repeated])}. Make them unique with adata.var_names_make_unique()."
        )


def check_counts(matrix: CountMatrix, adata: AnnData) -> CountSummary:
    """Check all counts of an AnnData.

    Values that are not integers are allowed; the summary says so.

    Raises
    ------
    InvalidDataError
        If a count is NaN, infinite, negative or above 1e15; the message names the first ones.

    Warns
    -----
    DataWarning
        If cells have no counts; the message names the first.
    """
    summary = check_values(matrix, adata.obs_names, adata.var_names, "gene")
    n_empty = int(np.count_nonzero(~summary.nonempty))
    if n_empty:
        warn(
            f"Expected counts in every cell; got {n_empty:,} of {adata.n_obs:,} cells without "
            f"any in {matrix.where}: {quote_names([*adata.obs_names[~summary.nonempty]])}. They "
            "have no information for the model; leave them out, e.g. with "
            "scanpy.pp.filter_cells(adata, min_counts=1).",
            DataWarning,
        )
    return summary


def check_values(
    matrix: CountMatrix, cells: Sequence[object], features: Sequence[object], noun: str
) -> CountSummary:
    """Check all counts of a matrix.

    Parameters
    ----------
    matrix
        Counts.
    cells, features
        Names of the rows and of the columns.
    noun
        What a feature is, for messages.

    Raises
    ------
    InvalidDataError
        If a count is NaN, infinite, negative or above 1e15; the message names the first ones.
    """
    summary = summarize_counts(matrix, len(cells))
    bad_values = [values for values in summary.bad_values if values.n]
    if bad_values:
        found = "; and ".join(values.describe(cells, features, noun) for values in bad_values)
        raise InvalidDataError(
            f"Expected finite counts of 0 or more in {matrix.where}; got {found}. {matrix.advice}"
        )
    return summary
