"""Blocks of the training and validation cells of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.data.batches.blocks import MIN_BATCH_SIZE, EpochBlocks
from cellvae.data.batches.labelled_cells import LabelledSampler
from cellvae.data.batches.mixing import plan_order
from cellvae.data.batches.split import Split
from cellvae.errors import InvalidDataError, InvalidOptionError
from cellvae.train.options.train_options import LoaderOptions, TrainOptions

VALIDATION_BATCH_SIZE = 512
"""Least number of cells in a validation batch, unless an option counts these batches."""
COUNTS_VALIDATION_BATCHES = frozenset(
    ("fast_dev_run", "limit_val_batches", "num_sanity_val_steps", "overfit_batches")
)
"""Arguments of Lightning's Trainer that count validation batches."""


@dataclass(frozen=True, kw_only=True)
class BlockFactory:
    """Makes the blocks of a run for any batch size.

    Parameters
    ----------
    rows, split
        All cells, and which of them are for training and validation.
    options
        Options of the run.
    seed
        Seed of the run.
    smallest
        Least number of cells in a training batch.
    smallest_part
        Least number of them that a process of several needs, where batch normalisation is over the
        cells of all.
    labels
        Label of every cell, -1 if unknown; None for models without labels.
    resizable
        Whether a search of the batch size chooses the size of validation batches too.
    """

    rows: Rows[Any]
    split: Split
    options: TrainOptions
    seed: int
    smallest: int
    smallest_part: int
    labels: NDArray[np.int64] | None = None
    resizable: bool = False

    @property
    def sync_batch_norm(self) -> bool:
        """Whether several processes normalise over the cells of all of them.

        Where cells are not shuffled a process may have no labelled cell in a step in which others
        have some; each then normalises over its own.
        """
        labels, loader = self.labels, self.options.loader
        has_labels = labels is not None and bool((labels[self.split.train] >= 0).any())
        return self.options.sync_batchnorm and (loader.shuffle or not has_labels)

    def training(self, batch_size: int, steps_per_block: int = 1) -> EpochBlocks[Any]:
        """Blocks of the training cells."""
        loader = dataclasses.replace(self.options.loader, batch_size=batch_size)
        blocks = make_split_blocks(
            self.rows,
            self.split.train,
            loader,
            self.seed,
            self.smallest,
            self.labels,
            steps_per_block,
        )
        if self.sync_batch_norm:
            blocks.min_part_size = self.smallest_part
        return blocks

    def validation(self, batch_size: int) -> EpochBlocks[Any]:
        """Blocks of the validation cells, in larger batches where nothing counts them."""
        counted = self.resizable or self.options.trainer.keys() & COUNTS_VALIDATION_BATCHES
        size = batch_size if counted else max(batch_size, VALIDATION_BATCH_SIZE)
        loader = LoaderOptions(batch_size=size, shuffle=False)
        return make_split_blocks(
            self.rows, self.split.validation, loader, self.seed, 1, self.labels
        )


def make_split_blocks(
    rows: Rows[Any],
    cells: NDArray[np.int64],
    loader: LoaderOptions,
    seed: int,
    smallest: int,
    labels: NDArray[np.int64] | None = None,
    steps_per_block: int = 1,
) -> EpochBlocks[Any]:
    """Make the blocks of the cells of one split, shuffled in every epoch."""
    labelled = cells[:0] if labels is None else cells[labels[cells] >= 0]
    sampler = None
    run_order = plan_order(
        rows,
        cells,
        loader.batch_size,
        shuffle=loader.shuffle,
        n_sets=2 if len(labelled) else 1,
    )
    if labels is not None and len(labelled):
        sampler = LabelledSampler(
            labelled,
            labels[labelled],
            loader.batch_size,
            seed=seed,
            n_per_label=loader.n_samples_per_label,
            shuffle=loader.shuffle,
            run_order=run_order,
        )
    return EpochBlocks(
        rows,
        cells,
        batch_size=loader.batch_size,
        seed=seed,
        shuffle=loader.shuffle,
        steps_per_block=steps_per_block,
        drop_last=loader.drop_last,
        min_batch_size=smallest,
        prefetch=loader.num_workers,
        labelled_cells=sampler,
        run_order=run_order,
    )


def smallest_batch(module: Module[Any], split: Split, loader: LoaderOptions) -> int:
    """Minimal number of cells in a training batch; a smaller last batch joins the one before it.

    Raises
    ------
    InvalidDataError
        If there is no training cell, or one and the network has batch normalisation.
    InvalidOptionError
        If every batch would be one cell and the network has batch normalisation.
    """
    in_eval_mode = set(module.frozen_weights.eval_modules)
    normalised = any(
        isinstance(part, torch.nn.BatchNorm1d) and name not in in_eval_mode
        for name, part in module.named_modules()
    )
    reason = ", since the network normalises over the cells of a batch" if normalised else ""
    needed = 2 if normalised else 1
    if len(split.train) < needed:
        plural = "s" if needed > 1 else ""
        raise InvalidDataError(
            f"Expected at least {needed} cell{plural} to train on{reason}; got {len(split.train)}."
        )
    if loader.batch_size < needed:
        raise InvalidOptionError(
            f"Expected batch_size to be at least 2{reason}; got {loader.batch_size}."
            f"{batch_norm_advice(module)}"
        )
    return 1 if min(loader.batch_size, len(split.train)) == 1 else MIN_BATCH_SIZE


def batch_norm_advice(module: Module[Any]) -> str:
    """Sentence on how to make the network without batch normalisation; empty if it cannot be."""
    present = getattr(getattr(module, "config", None), "use_batch_norm", None)
    if present is None:
        return ""
    off = False if isinstance(present, bool) else "none"
    return f" Or make the model with use_batch_norm={off!r}."
