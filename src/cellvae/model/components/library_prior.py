"""Prior of the library size: mean and variance of the log library size in each batch."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.data.batches.batching import iter_batches
from cellvae.data.files.remembered_results import read_result, remember_result
from cellvae.data.storage.disk.loaded_rows import stored_reader
from cellvae.data.storage.memory import ColumnRows

# Minimum variance, for a batch whose cells all have one library size.
MIN_VARIANCE = 1e-4


def library_stats_by_batch(
    rows: Rows[Any], n_batch: int, batch_size: int = 4096
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and population variance of the natural log of library sizes in each batch.

    Cells without counts have library size one, as in scvi-tools; a batch without cells has mean 0
    and variance 1. Those of cells in files are remembered while the files stay the same.
    """
    key = key_of_files(rows, n_batch)
    known = None if key is None else read_result(key)
    if known is not None and {"means", "variances"} <= known.keys():
        return torch.tensor([known["means"]]), torch.tensor([known["variances"]])
    means, variances = compute_library_stats(rows, n_batch, batch_size)
    if key is not None:
        remember_result(key, {"means": means[0].tolist(), "variances": variances[0].tolist()})
    return means, variances


def key_of_files(rows: Rows[Any], n_batch: int) -> str | None:
    """Digest of the files and the batch of each cell; None for cells in memory."""
    reader = stored_reader(rows)
    if reader is None or not isinstance(rows, ColumnRows) or "batch" not in rows.columns:
        return None
    codes = rows.columns["batch"].take(torch.arange(len(rows)))
    digest = hashlib.blake2b(f"library {n_batch} {reader.matrix.signature()}".encode())
    for values in (codes.numpy(), reader.cells):
        digest.update(b"all" if values is None else values.tobytes())
    return digest.hexdigest()[:32]


def compute_library_stats(
    rows: Rows[Any], n_batch: int, batch_size: int
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and variance of the log library size in each batch, by a pass over all cells."""
    library_sizes, codes = [], []
    for _, batch in iter_batches(rows, torch.arange(len(rows)), batch_size):
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
