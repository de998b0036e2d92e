"""Where the cells of a run are stored, and in which form its steps read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from cellvae.contracts import Module, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.device_kind import is_cpu
from cellvae.data.batches.read_ahead import keep_rows
from cellvae.data.storage.disk.loaded_rows import load_rows, stored_reader
from cellvae.data.storage.placement import choose_placement
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.data.storage.sparse import sparse_rows_for, with_csr_columns
from cellvae.nn import DecoderSCVI
from cellvae.nn.layers import SparseInputLinear
from cellvae.train.loop.cuda_graph import CUDAGraphCapturer, choose_capture
from cellvae.train.loop.steps_per_block import SINGLE_PRECISION
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.train_options import TrainOptions

N_SAMPLED = 512
"""Cells by which the form of the counts is chosen."""


def place_cells(
    plan: TrainingPlan,
    callbacks: Sequence[pl.Callback],
    rows: Rows[Any],
    options: TrainOptions,
    trainer: pl.Trainer,
) -> None:
    """Store the cells of a run where its steps read them, and capture the steps if possible.

    On the CPU, weights that are multiplied together are stored adjacently.

    Raises
    ------
    InvalidOptionError
        If cells are requested on a device that cannot hold them.
    """
    loop, device = plan.step_loop, trainer.strategy.root_device
    placed: Rows[Any] = rows
    if is_cpu(device):
        for part in plan.module.modules():
            if isinstance(part, DecoderSCVI):
                part.stack_heads()
    if stored_reader(rows) is not None:
        loop.set_placement("memory", "the cells are read from files, a buffer at a time")
        place = place_buffers(plan.module, rows, options, device)
        for blocks in plan.blocks:
            blocks.place = place
    elif trainer.world_size > 1:
        loop.set_placement("memory", "the cells are divided among several processes")
    elif options.loader.num_workers:
        loop.set_placement("memory", "batches are prefetched")
    elif is_cpu(device):
        placed = choose_sparse_rows(plan.module, rows, options) or rows
        loop.set_placement("memory", "the run is on the CPU")
    else:
        placement = choose_placement(rows, device, options.placement)
        placed = placement.rows
        loop.set_placement(placement.where, placement.reason)
    for blocks in plan.blocks:
        blocks.rows = placed
    steps = loop.steps_per_block
    decision = choose_capture(options, callbacks, plan.module, steps, device, loop.placement)
    loop.set_capture(
        decision,
        CUDAGraphCapturer(device) if decision.wanted else None,
        compare=options.capture_steps == "auto",
    )


def place_buffers(
    module: Module[Any], rows: Rows[Any], options: TrainOptions, device: torch.device
) -> Callable[[Rows[Any]], Rows[Any]]:
    """Function of the rows of a buffer in memory: the rows that steps read.

    Raises
    ------
    InvalidOptionError
        If the cells are requested on a device.
    """
    if not is_cpu(device):
        # Refuses placement='device'.
        choose_placement(rows, device, options.placement)
        return partial(ToDevice, device=device)
    sample = load_rows(rows, torch.arange(min(len(rows), N_SAMPLED)))
    if choose_sparse_rows(module, sample, options) is None:
        return keep_rows
    return with_csr_columns


def choose_sparse_rows(
    module: Module[Any], rows: Rows[Any], options: TrainOptions
) -> Rows[Any] | None:
    """Rows whose batches have sparse counts; None if module or options need dense ones.

    The first layers of the module get column-major weights, which a sparse product reads.
    """
    if options.compile.enabled or options.trainer.get("precision") not in SINGLE_PRECISION:
        return None
    sparse = sparse_rows_for(module, rows)
    if sparse is not None:
        first_cell = sparse.take(torch.zeros(1, dtype=torch.int64))
        n_features = min(each.n_genes for each in first_cell if isinstance(each, CSRBatch))
        for part in module.modules():
            if isinstance(part, SparseInputLinear) and part.in_features >= n_features:
                part.to_column_major()
    return sparse
