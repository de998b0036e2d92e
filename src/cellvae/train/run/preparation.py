"""Everything that a run needs before its first epoch, made from its options."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.log import warn
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.split import Split
from cellvae.errors import TrainingWarning
from cellvae.nn.sync_batch_norm import can_synchronise
from cellvae.train.callbacks.defaults import build_callbacks, check_monitors, monitored_metrics
from cellvae.train.loop.lightning_quiet import quiet_lightning
from cellvae.train.loop.model_files import ModelFiles
from cellvae.train.loop.steps.step_choice import has_adversary
from cellvae.train.loop.steps_per_block import choose_steps
from cellvae.train.loop.trainer import make_trainer
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.default_epochs import default_epochs
from cellvae.train.options.kl_warmup import KLWarmup, plan_warmup
from cellvae.train.options.metric_names import canonical_name, metric_names
from cellvae.train.options.optimizer_options import (
    PlateauOptions,
)
from cellvae.train.options.train_options import TrainOptions
from cellvae.train.records.history import History
from cellvae.train.records.hyperparameters import run_hyperparameters
from cellvae.train.records.run_state import RunState
from cellvae.train.resume.identity import check_identity, plain_options, resume_identity
from cellvae.train.run.placement import place_cells
from cellvae.train.run.run_start import RunStart
from cellvae.train.run.split_blocks import BlockFactory, smallest_batch
from cellvae.train.search.batch_size_search import ResizableTrainingPlan


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that is ready for its first epoch.

    Parameters
    ----------
    plan, trainer, callbacks
        What Lightning's loop runs.
    options, start, max_epochs
        How many epochs, from where, and how.
    weights_before
        State of the module before the run.
    dtype
        Data type of the weights before the run.
    sync_batch_norm
        Whether several processes normalise over the cells of all of them.
    """

    plan: TrainingPlan
    trainer: pl.Trainer
    callbacks: Sequence[pl.Callback]
    options: TrainOptions
    start: RunStart
    max_epochs: int
    weights_before: Mapping[str, Tensor]
    dtype: torch.dtype
    sync_batch_norm: bool


def prepare_run(
    module: Module[Any],
    rows: Rows[Any],
    split: Split,
    options: TrainOptions,
    *,
    seed: int,
    callbacks: Sequence[pl.Callback],
    start: RunStart,
    files: ModelFiles | None,
    labels: NDArray[np.int64] | None,
) -> PreparedRun:
    """Make callbacks, plan, blocks and trainer of a run; arguments as in :func:`fit`.

    Raises
    ------
    InvalidOptionError
        If options contradict each other or the data.
    ResumeError
        If the run to resume had another model, other data or hyperparameters.
    """
    smallest = smallest_batch(module, split, options.loader)
    warn_without_labels(split, labels)
    module.n_cells = len(split.train)
    module.loss_weights = {**type(module).loss_weights, **options.loss_weights}
    max_epochs = options.max_epochs or default_epochs(len(rows))
    history = start.history_of_run()
    all_callbacks = build_callbacks(
        options, callbacks, state_dir=start.state_dir, run_dir=start.run_dir
    )
    factory = BlockFactory(
        rows=rows,
        split=split,
        options=options,
        seed=seed,
        smallest=smallest,
        smallest_part=1 if can_synchronise(module) else smallest,
        labels=labels,
        resizable=any(isinstance(c, BatchSizeFinder) for c in all_callbacks),
    )
    plan, make_warmup = make_plan(module, factory, history, start, files, max_epochs)
    trainer = connect_blocks(plan, factory, all_callbacks, start, max_epochs, make_warmup)
    prepared = PreparedRun(
        plan=plan,
        trainer=trainer,
        callbacks=all_callbacks,
        options=options,
        start=start,
        max_epochs=max_epochs,
        weights_before={k: v.detach().clone() for k, v in module.state_dict().items()},
        dtype=next(module.parameters()).dtype,
        sync_batch_norm=factory.sync_batch_norm,
    )
    start.restore_counters(plan.run, trainer)
    if start.state is not None:
        module.load_state_dict(start.state.module)
    return prepared


def warn_without_labels(split: Split, labels: NDArray[np.int64] | None) -> None:
    """Warn if cells have labels and no training cell does."""
    if labels is not None and (labels >= 0).any() and (labels[split.train] < 0).all():
        warn(
            "No training cell has a label, so none is learned. Give a split in which some do.",
            TrainingWarning,
        )


def make_plan(
    module: Module[Any],
    factory: BlockFactory,
    history: History,
    start: RunStart,
    files: ModelFiles | None,
    max_epochs: int,
) -> tuple[TrainingPlan, Callable[[int], KLWarmup]]:
    """Make the training plan, and a function from steps per epoch to the KL warm-up.

    Raises
    ------
    ResumeError
        If the run to resume had another model, other data or hyperparameters.
    InvalidOptionError
        If an adversarial classifier is requested where there can be none.
    """
    options, state = factory.options, start.state
    adversarial = has_adversary(module, options.adversarial)
    floor = history.last_numeric("kl_weight") if options.warmup.n_epochs == "auto" else None
    make_warmup = partial(plan_warmup, options.warmup, max_epochs, floor=floor or 0.0)
    warmup = make_warmup(factory.training(options.loader.batch_size).n_steps)
    identity = {**start.identity, "training": resume_identity(options, adversarial=adversarial)}
    if state is not None:
        check_identity(state.identity, identity, start.differing)
        warmup = state.warmup
    run = RunState(
        run_id=state.run_id if state else secrets.token_hex(6),
        identity=identity,
        cell_values=start.cell_values,
        config=run_config(options, factory.seed, max_epochs),
        is_continuation=start.is_continuation,
    )
    plan = (ResizableTrainingPlan if factory.resizable else TrainingPlan)(
        module,
        seed=factory.seed,
        warmup=warmup,
        optimizer=options.optimizer,
        plateau=canonical_plateau(options.plateau, module),
        adversarial=options.adversarial,
        compiling=options.compile,
        history=history,
        log_steps=options.log_steps,
        files=files,
        rows=factory.rows,
        split=factory.split,
        first_epoch=state.first_epoch if state else None,
        first_step=start.carryover.n_steps if start.carryover else 0,
        batch_size=options.loader.batch_size,
        run=run,
        resume_hook=start.restore_optimizers,
    )
    # Lightning gives them to every logger.
    plan.save_hyperparameters(run_hyperparameters(identity, run.config, n_cells=len(factory.rows)))
    return plan, make_warmup


def connect_blocks(
    plan: TrainingPlan,
    factory: BlockFactory,
    callbacks: Sequence[pl.Callback],
    start: RunStart,
    max_epochs: int,
    make_warmup: Callable[[int], KLWarmup],
) -> pl.Trainer:
    """Give a plan its blocks of cells, and make the trainer for them.

    Raises
    ------
    InvalidOptionError
        If a monitored metric is not measured, or Lightning refuses an argument.
    """
    options, split = factory.options, factory.split
    batch_size = options.loader.batch_size
    needs_validation = check_monitors(
        monitored_metrics(callbacks, options, plan.known_metrics),
        plan.known_metrics,
        callbacks,
        n_validation=len(split.validation),
        n_train=len(split.train),
    )
    validate_every = options.check_val_every_n_epoch or (1 if needs_validation else None)
    validating = bool(validate_every and len(split.validation))
    n_steps = factory.training(batch_size).n_steps
    steps = choose_steps(options, callbacks, n_steps=n_steps, resizable=factory.resizable)
    plan.set_steps_per_block(steps)
    train_blocks = factory.training(batch_size, steps.number)
    with quiet_lightning():
        trainer = make_trainer(
            options,
            callbacks,
            max_epochs=max_epochs,
            n_batches=train_blocks.n_steps,
            validate_every=validate_every if validating else None,
            root=start.run_dir,
        )
    plan.set_blocks(train_blocks, factory.validation(batch_size) if validating else None)
    if isinstance(plan, ResizableTrainingPlan):

        def make_blocks(size: int) -> tuple[EpochBlocks[Any], EpochBlocks[Any] | None, KLWarmup]:
            train = factory.training(size)
            return (
                train,
                factory.validation(size) if validating else None,
                make_warmup(train.n_steps),
            )

        plan.set_block_maker(make_blocks)
    else:
        place_cells(plan, callbacks, factory.rows, options, trainer)
    return trainer


def canonical_plateau(options: PlateauOptions | None, module: Module[Any]) -> PlateauOptions | None:
    """Learning rate schedule with the canonical name of its metric."""
    if options is None:
        return None
    known = [
        *metric_names("train", module.extra_metric_names, module.loss_parts),
        *metric_names("validation", module.extra_metric_names, module.loss_parts),
    ]
    return dataclasses.replace(options, metric=canonical_name(options.metric, known))


def run_config(options: TrainOptions, seed: int, max_epochs: int) -> dict[str, Any]:
    """All options of a run as plain values, for the record."""
    # Arguments of the trainer may hold loggers, which are not to be copied.
    values = plain_options(dataclasses.asdict(dataclasses.replace(options, trainer={})))
    values["trainer"] = plain_options(dict(options.trainer))
    return values | {"seed": seed, "max_epochs": max_epochs}
