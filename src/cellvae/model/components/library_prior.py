"""Prior of the library size: mean and variance of the log library size in each batch."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.data.batches.read_ahead import iter_read_batches
from cellvae.data.files.remembered_results import read_result, remember_result
from cellvae.data.storage.disk.backed_column import BackedColumn
from cellvae.data.storage.memory import ColumnRows

# Minimum variance, for a batch whose cells all have one library size.
MIN_VARIANCE = 1e-4


def library_stats_by_batch(
    rows: Rows[Any], n_batch: int, batch_size: int = 4096
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and population variance of the natural log of library sizes in each batch.

    Cells without counts have library size one, as in scvi-tools; a batch without cells has mean 0
    and variance 1. The result for cells in files is remembered while the files stay the same.
    """
    key = key_of_result(rows, n_batch)
    known = None if key is None else read_result(key)
    if known is not None:
        return torch.tensor([known["means"]]), torch.tensor([known["variances"]])
    means, variances = compute_library_stats(rows, n_batch, batch_size)
    if key is not None:
        remember_result(key, {"means": means[0].tolist(), "variances": variances[0].tolist()})
    return means, variances


def key_of_result(rows: Rows[Any], n_batch: int) -> str | None:
    """Key of the statistics of counts in files and of their batches; None for counts in memory."""
    if not isinstance(rows, ColumnRows):
        return None
    counts = rows.columns["counts"]
    files = counts.signature() if isinstance(counts, BackedColumn) else None
    if files is None:
        return None
    codes = rows.columns["batch"].take(torch.arange(len(rows)))
    digest = hashlib.blake2b(f"library sizes {files} {n_batch} ".encode(), digest_size=16)
    digest.update(codes.numpy().tobytes())
    return digest.hexdigest()


def compute_library_stats(
    rows: Rows[Any], n_batch: int, batch_size: int
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and variance of the log library sizes in each batch, in one pass over the cells."""
    library_sizes, codes = [], []
    for _, batch in iter_read_batches(rows, torch.arange(len(rows)), batch_size):
        library_sizes.append(batch.counts.sum(dim=-1).double())
        codes.append(batch.batch.squeeze(-1))
    total, code = torch.cat(library_sizes), torch.cat(codes)
    log_library = torch.where(total > 0, total, 1.0).log()
    means, variances = torch.zeros(1, n_batch), torch.ones(1, n_batch)
    for i in torch.unique(code).tolist():
        in_batch = log_library[code == i]
        means[0, i] = in_batch.mean()
        variances[0, i] = in_batch.var(correction=0).clamp(min=MIN_VARIANCE)
    return means, variances
