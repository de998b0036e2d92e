"""Prior of the library size: mean and variance of the log library size in each batch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.data.batches.read_ahead import iter_read_batches

# Minimum variance, for a batch whose cells all have one library size.
MIN_VARIANCE = 1e-4


def library_stats_by_batch(
    rows: Rows[Any], n_batch: int, batch_size: int = 4096
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and population variance of the natural log of library sizes in each batch.

    Cells without counts have library size one, as in scvi-tools; a batch without cells has mean 0
    and variance 1.
    """
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
