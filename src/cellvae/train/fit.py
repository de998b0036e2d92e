"""The recipe of a training run, from options to a trained module and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.data.blocks import SMALLEST, EpochBlocks
from cellvae.data.split import Split
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingError, TrainingWarning
from cellvae.messages import logger, warn
from cellvae.seeds import own_randomness
from cellvae.train.callbacks.choose import build_callbacks, check_monitors, monitored_by
from cellvae.train.ending import is_interrupt, make_report
from cellvae.train.epochs import default_epochs
from cellvae.train.history import History
from cellvae.train.options import LoaderOptions, TrainOptions
from cellvae.train.plan import ModelFiles, Plan
from cellvae.train.quiet import quiet_lightning, sigint_kept
from cellvae.train.report import TrainingReport
from cellvae.train.trainer import make_trainer
from cellvae.train.warmup import plan_warmup


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves behind beside the weights of the module."""

    history: History
    report: TrainingReport
    kept: bool
    """Whether the module has weights of this run; otherwise those from before it are back."""
    error: BaseException | None = None


def fit(
    module: Module[Any],
    rows: Rows[Any],
    split: Split,
    options: TrainOptions,
    *,
    seed: int,
    callbacks: Sequence[pl.Callback] = (),
    history: History | None = None,
    files: ModelFiles | None = None,
) -> Outcome:
    """Train a module on the cells of a split.

    Whatever ends the run, the module is left in eval mode: with the best weights where something
    was monitored, else with the last, or with those from before the run where it failed and left
    none worth keeping. An exception that ended it is in the outcome, not raised.

    Parameters
    ----------
    module
        The mathematics of the model; changed in place.
    rows
        All cells.
    split
        Which cells are for training and validation.
    options
        What was asked for.
    seed
        Seed of the run.
    callbacks
        The user's own callbacks.
    history
        Metrics of earlier runs of this module, continued.
    files
        How the model is saved, for checkpoints.

    Raises
    ------
    InvalidOptionError
        If options contradict each other or the data, before training starts.
    """
    check_cells(split)
    max_epochs = options.max_epochs or default_epochs(len(rows))
    history = history.copy() if history is not None else History()
    chosen = build_callbacks(options, callbacks)
    train_blocks = blocks_of(rows, split.train, options.loader, seed, SMALLEST)
    check_batch_norm(module, options.loader)
    floor = history.last("kl_weight") if options.warmup.n_epochs == "auto" else None
    plan = Plan(
        module,
        seed=seed,
        warmup=plan_warmup(options.warmup, max_epochs, len(train_blocks), floor or 0.0),
        optimizer=options.optimizer,
        plateau=options.plateau,
        compiling=options.compile,
        history=history,
        log_steps=options.log_steps,
        files=files,
        rows=rows,
        split=split,
    )
    needed = check_monitors(
        monitored_by(chosen, options),
        plan.known_metrics,
        chosen,
        n_validation=len(split.validation),
        n_train=len(split.train),
    )
    validate_every = options.check_val_every_n_epoch or (1 if needed else None)
    validation_blocks = None
    if validate_every and len(split.validation):
        loader = LoaderOptions(batch_size=options.loader.batch_size, shuffle=False)
        validation_blocks = blocks_of(rows, split.validation, loader, seed, 1)
    with quiet_lightning():
        trainer = make_trainer(
            options,
            chosen,
            max_epochs=max_epochs,
            n_batches=len(train_blocks),
            validate_every=validate_every if validation_blocks is not None else None,
        )
    before = {k: v.detach().clone() for k, v in module.state_dict().items()}
    dtype = next(module.parameters()).dtype
    module.train()
    started = time.monotonic()
    error = run(trainer, plan, train_blocks, validation_blocks, seed)
    module.to(trainer.strategy.root_device, dtype).eval()
    if error is None and plan.not_finite is not None:
        error = told_or_raised(plan)
    seconds = time.monotonic() - started
    kept = error is None or usable(module, plan, error)
    if not kept:
        module.load_state_dict(before)
    if is_interrupt(error):
        logger.info("Training was interrupted; the model can be used and trained further.")
    report = make_report(trainer, plan, max_epochs, seconds, seed, chosen, error)
    return Outcome(
        history=history, report=report, kept=kept, error=None if is_interrupt(error) else error
    )


def run(
    trainer: pl.Trainer,
    plan: Plan,
    train_blocks: EpochBlocks,
    validation_blocks: EpochBlocks | None,
    seed: int,
) -> BaseException | None:
    """Run Lightning's loop with its own random numbers; what ended it, if anything did."""
    with quiet_lightning(), sigint_kept(), own_randomness(seed, "training"):
        try:
            trainer.fit(plan, train_blocks, validation_blocks)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Lightning turns Ctrl-C into SystemExit, with the interrupt as its context.
            return error.__context__ if is_interrupt(error.__context__) else error
    return None


def told_or_raised(plan: Plan) -> TrainingError | None:
    """Error of a run whose loss was not finite; None where the best are back."""
    advice = "Check the counts for outliers, or lower the learning rate: plan_kwargs={'lr': ...}."
    if not any(best.restored for best in plan.best.values()):
        return TrainingError(f"Training stopped: {plan.not_finite}. {advice}")
    warn(
        f"Training stopped: {plan.not_finite}. The best weights are back. {advice}", TrainingWarning
    )
    return None


def usable(module: Module[Any], plan: Plan, error: BaseException) -> bool:
    """Whether weights of a run that was cut off are worth keeping.

    They are if the best were brought back, if they are finite after Ctrl-C, or if they are finite
    after at least one whole epoch of a first run; a further run that failed is undone.
    """
    if any(best.restored for best in plan.best.values()):
        return True
    finite = all(bool(torch.isfinite(p).all()) for p in module.parameters())
    learned = plan.n_epochs_done > 0 and plan.first_epoch == 0
    return finite and (learned or is_interrupt(error))


def blocks_of(
    rows: Rows[Any], cells: NDArray[np.int64], loader: LoaderOptions, seed: int, smallest: int
) -> EpochBlocks[Any]:
    """Cells of one split, cut into blocks anew every epoch."""
    return EpochBlocks(
        rows,
        cells,
        batch_size=loader.batch_size,
        seed=seed,
        shuffle=loader.shuffle,
        drop_last=loader.drop_last,
        smallest=smallest,
        prefetch=loader.num_workers,
    )


def check_batch_norm(module: Module[Any], loader: LoaderOptions) -> None:
    """Check that batches are large enough for the network.

    Raises
    ------
    InvalidOptionError
        If every batch would be one cell and the network normalises over batches.
    """
    normalised = any(isinstance(part, torch.nn.BatchNorm1d) for part in module.modules())
    if normalised and loader.batch_size < 2:
        raise InvalidOptionError(
            "Expected batch_size to be at least 2, since the network normalises over the cells of "
            f"a batch; got {loader.batch_size}. Or make the model with use_batch_norm='none'."
        )


def check_cells(split: Split) -> None:
    """Check that there are cells to train on.

    Raises
    ------
    InvalidDataError
        If there are fewer than two.
    """
    if len(split.train) < 2:
        raise InvalidDataError(f"Expected at least 2 cells to train on; got {len(split.train)}.")
