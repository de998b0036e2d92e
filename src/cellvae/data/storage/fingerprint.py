"""Fingerprint of counts in memory, which shows whether the user has changed them since."""

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
"""Values that are hashed: enough to notice a normalisation, few enough to take no time."""


def fingerprint(rows: ColumnRows[Any]) -> str:
    """Hex digest of a sample of the counts in memory; it changes if their values change.

    It depends neither on the order in which genes are stored nor on explicit zeros.
    """
    digest = hashlib.blake2b(digest_size=16)
    for column in rows.columns.values():
        if isinstance(column, SparseColumn | DenseColumn):
            digest.update(cell_checksums(column, sample_cells_evenly(column)).tobytes())
    return digest.hexdigest()


def sample_cells_evenly(column: Column) -> NDArray[np.int64]:
    """Indices of evenly spaced cells that have about `N_SAMPLED` values together."""
    n = max(16, int(N_SAMPLED // max(values_per_cell(column), 1)))
    return np.arange(0, len(column), max(1, -(-len(column) // n)))
