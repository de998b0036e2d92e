"""Fingerprint of counts that are kept as the user's own arrays: it tells when they were changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cellvae.data.rows.memory import ColumnRows, DenseColumn, SparseColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Values that are looked at: enough to see a normalisation, few enough to cost nothing.
LOOKED_AT = 4096


def fingerprint(rows: ColumnRows[Any]) -> str:
    """Digest of values spread over the counts in memory; the same as long as they stay the same."""
    digest = hashlib.blake2b(digest_size=16)
    for column in rows.columns.values():
        if isinstance(column, SparseColumn):
            digest.update(spread(column.data))
        elif isinstance(column, DenseColumn):
            step = max(1, len(column.values) // 64)
            digest.update(b"".join(spread(row, 64) for row in column.values[::step]))
    return digest.hexdigest()


def spread(values: NDArray[Any], n: int = LOOKED_AT) -> bytes:
    """Bytes of some values, evenly spaced."""
    return values[:: max(1, len(values) // n)].tobytes()
