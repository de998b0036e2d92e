"""Cells by their entries, for modules and runs that can read them."""

from __future__ import annotations

from typing import Any

import torch

from cellvae.contracts import Module, Rows
from cellvae.data.storage.sparse import sparse_rows_for
from cellvae.nn.sparse_input import SparseInputLinear
from cellvae.train.loop.steps_per_block import SINGLE_PRECISION
from cellvae.train.options.train_options import TrainOptions


def choose_sparse_rows(
    module: Module[Any], rows: Rows[Any], options: TrainOptions
) -> Rows[Any] | None:
    """Rows whose batches have the entries of the counts alone; None where that cannot be.

    The weights that read the counts are laid out for it.
    """
    if options.compile.enabled or options.trainer.get("precision") not in SINGLE_PRECISION:
        return None
    sparse = sparse_rows_for(module, rows)
    if sparse is not None:
        n_genes = sparse.take(torch.zeros(1, dtype=torch.int64)).counts.n_genes
        for part in module.modules():
            if isinstance(part, SparseInputLinear) and part.in_features == n_genes:
                part.to_column_major()
    return sparse
