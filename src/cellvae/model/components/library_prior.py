"""Prior of the size of a cell: mean and variance of log sizes in each batch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.data.batches.batching import iter_batches

# Least variance of a batch whose cells all have one size.
MIN_VARIANCE = 1e-4


def library_stats_by_batch(
    rows: Rows[Any], n_batch: int, batch_size: int = 4096
) -> tuple[Float[Tensor, "1 batches"], Float[Tensor, "1 batches"]]:
    """Mean and variance (of the population) of the natural logarithm of cell sizes in each batch.

    Cells without counts count as size one, as in scvi-tools; a batch without cells has 0 and 1.
    """
    sizes, codes = [], []
    for _, batch in iter_batches(rows, torch.arange(len(rows)), batch_size):
        sizes.append(batch.counts.sum(dim=-1).double())
        codes.append(batch.batch.squeeze(-1))
    total, code = torch.cat(sizes), torch.cat(codes)
    log_size = torch.where(total > 0, total, 1.0).log()
    means, variances = torch.zeros(1, n_batch), torch.ones(1, n_batch)
    for i in torch.unique(code).tolist():
        mine = log_size[code == i]
        means[0, i] = mine.mean()
        variances[0, i] = mine.var(correction=0).clamp(min=MIN_VARIANCE)
    return means, variances
