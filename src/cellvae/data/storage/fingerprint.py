"""Fingerprint of counts that are kept as the user's own arrays: it tells when they were changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cellvae.data.storage.checksums import cell_checksums, values_per_cell
from cellvae.data.storage.memory import ColumnRows, DenseColumn, SparseColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column

N_SAMPLED = 2**16
"""Values that are looked at: enough to see a normalisation, few enough to cost nothing."""


def fingerprint(rows: ColumnRows[Any]) -> str:
    """Digest of cells spread over the counts in memory; the same as long as values stay the same.

    It does not change with the order in which genes are stored, nor with zeros that are stored.
    """
    digest = hashlib.blake2b(digest_size=16)
    for column in rows.columns.values():
        if isinstance(column, SparseColumn | DenseColumn):
            digest.update(cell_checksums(column, sample_cells_evenly(column)).tobytes())
    return digest.hexdigest()


def sample_cells_evenly(column: Column) -> NDArray[np.int64]:
    """Numbers of some cells, evenly spaced, that have about `LOOKED_AT` values."""
    n = max(16, int(N_SAMPLED // max(values_per_cell(column), 1)))
    return np.arange(0, len(column), max(1, -(-len(column) // n)))
