"""Cells by their entries, for modules and runs that can read them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from cellvae.contracts import Module, Rows
from cellvae.data.rows.entries import with_entries
from cellvae.entries import Entries
from cellvae.kernels import compiled_for
from cellvae.nn.input_linear import InputLinear
from cellvae.train.options import TrainOptions
from cellvae.train.steps import SINGLE_PRECISION


def sparse_rows(
    module: Module[Any], rows: Rows[Any], options: TrainOptions, trainer: pl.Trainer
) -> Rows[Any] | None:
    """Rows whose batches have the entries of the counts alone; None where that cannot be.

    It can where the class of the module says so, the counts are sparse in memory, and the run is in
    single precision on a processor for which kernels are compiled. The weights that read the counts
    are laid out for it.
    """
    says_so = "reads_entries" in vars(type(module)) and module.reads_entries
    compiling = options.compile is not None and options.compile.enabled
    if not says_so or compiling or options.loader.num_workers:
        return None
    if trainer.strategy.root_device.type != "cpu" or trainer.world_size > 1:
        return None
    if options.trainer.get("precision") not in SINGLE_PRECISION:
        return None
    sparse = with_entries(rows)
    if sparse is None or next(module.parameters()).dtype != torch.float32:
        return None
    counts = sparse.take(torch.zeros(1, dtype=torch.int64)).counts
    if not (
        isinstance(counts, Entries) and compiled_for(counts) and compiled_for(counts, "entries")
    ):
        return None
    for part in module.modules():
        if isinstance(part, InputLinear) and part.in_features == counts.n_genes:
            part.lay_out()
    return sparse
