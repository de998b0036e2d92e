"""Search of the largest batch that fits in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.core.options import check_value
from cellvae.core.platform.out_of_memory import is_out_of_memory
from cellvae.core.seeds import isolated_rng
from cellvae.data.batches.blocks import MIN_BATCH_SIZE, EpochBlocks
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingError
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)
from cellvae.train.search.dry_run import DryRun, cycle_blocks

Search = Literal["power", "binsearch"]
BlockMaker: TypeAlias = Callable[[int], tuple[EpochBlocks[Any], EpochBlocks[Any] | None, KLWarmup]]
"""Function of a batch size that returns blocks for training and validation, and the KL warm-up."""


def find_batch_size(
    module: Module[Any],
    rows: Rows[Any],
    cells: NDArray[np.int64],
    *,
    seed: int,
    mode: Search = "power",
    start: int = 128,
    steps_per_trial: int = 3,
    max_trials: int = 25,
    max_val: int = 8192,
    margin: float = 0.05,
    optimizer: OptimizerOptions | None = None,
    adversarial: AdversarialOptions | None = None,
    device: torch.device | str | None = None,
) -> int:
    """Find the largest batch that fits in memory, by training copies of a module for a few steps.

    The module, its flags and the global random state do not change.

    Parameters
    ----------
    module
        The mathematics of the model.
    rows, cells
        All cells, and the indices of those to train on; a batch never has more.
    seed
        Seed of the order of the cells and of all noise.
    mode
        `"power"` doubles the batch until it does not fit; `"binsearch"` then halves the interval
        of the answer, and subtracts a margin for safety.
    start
        First batch that is tried; one that does not fit is halved until it does.
    steps_per_trial
        Optimizer steps with each size.
    max_trials
        Most sizes that are tried.
    max_val
        Largest batch that is tried.
    margin
        Fraction that `"binsearch"` subtracts where memory was the limit.
    optimizer
        Options of the optimizer, which needs memory too.
    adversarial
        Options of an adversarial classifier.
    device
        Device; None for that of the module.

    Raises
    ------
    InvalidOptionError
        If a number is out of its range.
    InvalidDataError
        If there are too few cells for a batch.
    TrainingError
        If not even the smallest batch fits.
    """
    check_value("mode", mode, Search)
    check_batch_size_arguments(start, steps_per_trial, max_trials, max_val, margin)
    if len(cells) < MIN_BATCH_SIZE:
        raise InvalidDataError(f"Expected at least {MIN_BATCH_SIZE} cells; got {len(cells)}.")

    options = optimizer or OptimizerOptions()

    def fits(size: int) -> bool:
        with isolated_rng(seed, "batch size search"), torch.enable_grad():
            fit = fits_in_memory(
                module,
                rows,
                cells,
                size,
                steps_per_trial,
                options,
                adversarial=adversarial,
                seed=seed,
                device=device,
            )
        if not fit:
            release_memory()
        return fit

    found, too_large, n_trials = power_search(fits, start, min(max_val, len(cells)), max_trials)
    if mode == "power" or too_large is None:
        return found
    while too_large - found > 1 and n_trials < max_trials:
        middle = (found + too_large) // 2
        n_trials += 1
        if fits(middle):
            found = middle
        else:
            too_large = middle
    return max(MIN_BATCH_SIZE, int(found * (1 - margin)))


def power_search(
    fits: Callable[[int], bool], start: int, largest: int, max_trials: int
) -> tuple[int, int | None, int]:
    """Largest of the sizes tried that fits, the smallest that does not, and the number of trials.

    Raises
    ------
    TrainingError
        If none fits.
    """
    size, n_trials = max(MIN_BATCH_SIZE, min(start, largest)), 1
    too_large: int | None = None
    while not fits(size):
        too_large = size
        if size == MIN_BATCH_SIZE or n_trials >= max_trials:
            raise TrainingError(
                f"Expected a batch to fit in memory; one of {size} cells did not. Make the model "
                "smaller (n_hidden, fewer genes), free memory, or use another device."
            )
        size, n_trials = max(MIN_BATCH_SIZE, size // 2), n_trials + 1
    while too_large is None and size < largest and n_trials < max_trials:
        larger, n_trials = min(2 * size, largest), n_trials + 1
        if fits(larger):
            size = larger
        else:
            too_large = larger
    return size, too_large, n_trials


def fits_in_memory(
    module: Module[Any],
    rows: Rows[Any],
    cells: NDArray[np.int64],
    size: int,
    n_steps: int,
    optimizer: OptimizerOptions,
    *,
    adversarial: AdversarialOptions | None,
    seed: int,
    device: torch.device | str | None,
) -> bool:
    """Whether a few steps with batches of one size fit in memory."""
    try:
        trial = DryRun(module, optimizer, adversarial=adversarial, seed=seed, device=device)
        blocks = cycle_blocks(rows, cells, batch_size=size, seed=seed, drop_last=True)
        for block in islice(blocks, n_steps):
            trial.step(block)
        if trial.device.type == "cuda":
            torch.cuda.synchronize(trial.device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def release_memory() -> None:
    """Free the memory of a trial that failed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_batch_size_arguments(
    start: int, steps_per_trial: int, max_trials: int, max_val: int, margin: float
) -> None:
    """Check the arguments of a search of a batch size.

    Raises
    ------
    InvalidOptionError
        If one is out of its range.
    """
    least = {
        "start": MIN_BATCH_SIZE,
        "max_val": MIN_BATCH_SIZE,
        "steps_per_trial": 1,
        "max_trials": 1,
    }
    given = {
        "start": start,
        "max_val": max_val,
        "steps_per_trial": steps_per_trial,
        "max_trials": max_trials,
    }
    for name, value in given.items():
        if value < least[name]:
            raise InvalidOptionError(f"Expected {name} to be at least {least[name]}; got {value}.")
    if not 0 <= margin < 1:
        raise InvalidOptionError(f"Expected margin to be at least 0 and below 1; got {margin:g}.")


class ResizableTrainingPlan(TrainingPlan):
    """Training plan with a `batch_size` that Lightning's search of a batch size can set.

    Setting it makes new blocks of training and validation cells, which are the data loaders.
    """

    make_blocks: BlockMaker | None = None
    size: int = 0

    def set_block_maker(self, make_blocks: BlockMaker) -> None:
        """Set the function that makes blocks of another batch size."""
        self.make_blocks = make_blocks

    @property
    def batch_size(self) -> int:
        """Cells of a batch."""
        return self.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.size = size
        if self.make_blocks is not None:
            train, validation, warmup = self.make_blocks(size)
            self.set_warmup(warmup)
            self.set_blocks(train, validation)

    def train_dataloader(self) -> EpochBlocks[Any]:
        """Blocks of the training cells."""
        return self.blocks[0]

    def val_dataloader(self) -> Any:
        """Blocks of the validation cells; none where nothing is validated."""
        return self.blocks[1] if len(self.blocks) > 1 else []
