"""The recipe of a training run, from options to a trained module and a report."""

from __future__ import annotations

import dataclasses
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.core.log import logger, warn
from cellvae.core.malloc import retain_freed_memory
from cellvae.core.seeds import isolated_rng
from cellvae.data.batches.blocks import MIN_BATCH_SIZE, EpochBlocks
from cellvae.data.batches.labelled_cells import LabelledSampler
from cellvae.data.batches.split import Split
from cellvae.data.setup.cell_values import CellValues
from cellvae.data.storage.placement import choose_placement
from cellvae.errors import (
    InvalidDataError,
    InvalidOptionError,
    StopTraining,
    TrainingError,
    TrainingWarning,
)
from cellvae.train.callbacks.defaults import build_callbacks, check_monitors, monitored_metrics
from cellvae.train.callbacks.nan.nan_guard import NAN_ADVICE, weights_are_finite
from cellvae.train.loop.cuda_graph import CUDAGraphCapturer, CUDAGraphStep, choose_capture
from cellvae.train.loop.freezing import restore_frozen_after_step
from cellvae.train.loop.sparse_batches import choose_sparse_rows
from cellvae.train.loop.steps_per_block import StepsPerBlock, choose_steps
from cellvae.train.loop.trainer import make_trainer
from cellvae.train.loop.training_plan import ModelFiles, TrainingPlan
from cellvae.train.options.default_epochs import default_epochs
from cellvae.train.options.kl_warmup import KLWarmup, plan_warmup
from cellvae.train.options.metric_names import canonical_name, metric_names
from cellvae.train.options.train_options import LoaderOptions, PlateauOptions, TrainOptions
from cellvae.train.records.history import History
from cellvae.train.records.training_report import TrainingReport
from cellvae.train.resume.optimizer_carryover import OptimizerCarryover, make_carryover
from cellvae.train.resume.training_state import (
    TrainingState,
    advance_loops,
    check_identity,
    restore_callbacks,
    restore_optimizers,
)
from cellvae.train.run.end_of_run import is_interrupt, is_terminated, make_report
from cellvae.train.run.interruption import SigintGuard, catch_stop_training
from cellvae.train.run.lightning_noise import quiet_lightning, restore_sigint_handler
from cellvae.train.search.resizable_plan import ResizableTrainingPlan


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves behind beside the weights of the module."""

    history: History
    report: TrainingReport
    keep_weights: bool
    """Whether the module has weights of this run; otherwise those from before it are back."""
    carried: OptimizerCarryover | None = None
    """What a further run goes on with."""
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Where a run begins, beside the weights of the module.

    Parameters
    ----------
    history
        Metrics of earlier runs of the module.
    carried
        Optimizers of the run before.
    state
        Interrupted run that this one goes on with; None for a new one.
    identity
        What the run is made of, as plain values; a run that goes on must agree with it.
    cell_values
        Values of each column that is read, kept in the state of the run.
    differing
        A line for each column that has other values than in the state to go on with.
    state_dir, run_dir
        Where the state of the run is kept, and everything else that it writes.
    """

    history: History = field(default_factory=History)
    carried: OptimizerCarryover | None = None
    state: TrainingState | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    cell_values: Mapping[str, CellValues] = field(default_factory=dict)
    differing: Sequence[str] = ()
    state_dir: Path | None = None
    run_dir: Path | None = None


VALIDATION_BATCH_SIZE = 512
"""Cells of a validation batch at least, unless something counts these batches."""
MAX_VALIDATION_FRACTION = frozenset(
    ("fast_dev_run", "limit_val_batches", "num_sanity_val_steps", "overfit_batches")
)
"""Words of Lightning's Trainer that count validation batches."""


def fit(
    module: Module[Any],
    rows: Rows[Any],
    split: Split,
    options: TrainOptions,
    *,
    seed: int,
    callbacks: Sequence[pl.Callback] = (),
    start: RunStart | None = None,
    files: ModelFiles | None = None,
    labels: NDArray[np.int64] | None = None,
) -> RunResult:
    """Train a module on the cells of a split.

    Whatever ends the run, the module is left in eval mode: with the best weights where something
    was monitored, else with the last finite ones, or with those from before the run where it
    failed and left none worth keeping. An exception that ended it is in the outcome, not raised.

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
    start
        Where the run begins; None for a first run.
    files
        How the model is saved, for checkpoints.
    labels
        Label of every cell, -1 where it is not known, for a model that learns them; None for
        others.

    Raises
    ------
    InvalidOptionError
        If options contradict each other or the data, before training starts.
    ResumeError
        If the run to go on with was made of other things.
    """
    start = start or RunStart()
    state, carried = start.state, start.carried
    smallest = smallest_batch(module, split, options.loader)
    if labels is not None and (labels >= 0).any() and (labels[split.train] < 0).all():
        warn(
            "No training cell has a label, so none is learned. Give a split in which some do.",
            TrainingWarning,
        )
    module.n_cells = len(split.train)
    module.loss_weights = {**type(module).loss_weights, **options.loss_weights}
    max_epochs = options.max_epochs or default_epochs(len(rows))
    history = (state.history if state else start.history).copy()
    if state is None:
        history.begin_run()
    chosen = build_callbacks(options, callbacks, state_dir=start.state_dir, run_dir=start.run_dir)
    resizable = any(isinstance(c, BatchSizeFinder) for c in chosen)

    single = StepsPerBlock(number=1, reason="")

    def cut(
        batch_size: int, validating: bool, steps: StepsPerBlock = single
    ) -> tuple[EpochBlocks, EpochBlocks | None]:
        loader = dataclasses.replace(options.loader, batch_size=batch_size)
        train = make_split_blocks(rows, split.train, loader, seed, smallest, labels, steps.number)
        if not validating:
            return train, None
        told = resizable or options.trainer.keys() & MAX_VALIDATION_FRACTION
        size = batch_size if told else max(batch_size, VALIDATION_BATCH_SIZE)
        plain = LoaderOptions(batch_size=size, shuffle=False)
        return train, make_split_blocks(rows, split.validation, plain, seed, 1, labels)

    train_blocks, _ = cut(options.loader.batch_size, False)
    floor = history.last_numeric("kl_weight") if options.warmup.n_epochs == "auto" else None
    warmup = plan_warmup(options.warmup, max_epochs, train_blocks.n_steps, floor or 0.0)
    identity = {**start.identity, "training": resume_identity(options)}
    if state is not None:
        check_identity(state.identity, identity, start.differing)
        warmup = state.warmup
    plan = (ResizableTrainingPlan if resizable else TrainingPlan)(
        module,
        seed=seed,
        warmup=warmup,
        optimizer=options.optimizer,
        plateau=canonical_plateau(options.plateau, module),
        compiling=options.compile,
        history=history,
        log_steps=options.log_steps,
        files=files,
        rows=rows,
        split=split,
        first_epoch=state.first_epoch if state else None,
        first_step=carried.n_steps if carried else 0,
        batch_size=options.loader.batch_size,
        run_id=state.run_id if state else secrets.token_hex(6),
        identity=identity,
        cell_values=start.cell_values,
        run_config=run_config(options, seed, max_epochs),
    )
    needed = check_monitors(
        monitored_metrics(chosen, options, plan.known_metrics),
        plan.known_metrics,
        chosen,
        n_validation=len(split.validation),
        n_train=len(split.train),
    )
    validate_every = options.check_val_every_n_epoch or (1 if needed else None)
    validating = bool(validate_every and len(split.validation))
    steps = choose_steps(options, chosen, n_steps=train_blocks.n_steps, can_be_cut=not resizable)
    plan.set_steps_per_block(steps)
    train_blocks, validation_blocks = cut(options.loader.batch_size, validating, steps)
    with quiet_lightning():
        trainer = make_trainer(
            options,
            chosen,
            max_epochs=max_epochs,
            n_batches=train_blocks.n_steps,
            validate_every=validate_every if validation_blocks is not None else None,
            root=start.run_dir,
        )
    plan.blocks = tuple(b for b in (train_blocks, validation_blocks) if b is not None)
    if not resizable:
        place_cells(plan, chosen, rows, options, trainer, steps)
    if isinstance(plan, ResizableTrainingPlan):

        def cut_anew(size: int) -> tuple[EpochBlocks, EpochBlocks | None, KLWarmup]:
            train, validation = cut(size, validating)
            return (
                train,
                validation,
                plan_warmup(options.warmup, max_epochs, train.n_steps, floor or 0),
            )

        plan.make_blocks = cut_anew
    before = {k: v.detach().clone() for k, v in module.state_dict().items()}
    dtype = next(module.parameters()).dtype
    plan.on_start = resume_hook(plan, trainer, state, carried)
    if state is not None:
        module.load_state_dict(state.module)
    module.train()
    with restore_frozen_after_step(module):
        error = run(trainer, plan, chosen, options.on_interrupt)
        module.to(trainer.strategy.root_device, dtype).eval()
    if error is None and plan.nan_event is not None:
        error = nan_error_or_warning(plan)
    kept = should_keep_weights(trainer, plan, error)
    if not kept:
        module.load_state_dict(before)
    report = make_report(
        trainer,
        plan,
        max_epochs,
        plan.seconds,
        seed,
        chosen,
        error,
        resumed_epoch=state.first_epoch + state.n_epochs if state else None,
        run_dir=start.run_dir,
    )
    plan.status, plan.frozen_weights, plan.report = report.status, kept, report
    if report.status == "interrupted":
        plan.call_callbacks("on_interrupt")
    notify_on_stop(plan, report.reason)
    if report.status == "interrupted":
        logger.info("Training was interrupted; the model can be used and trained further.")
    return RunResult(
        history=history,
        report=report,
        keep_weights=kept,
        carried=make_carryover(trainer, plan) if kept and error is None else None,
        error=error,
    )


def place_cells(
    plan: TrainingPlan,
    callbacks: Sequence[pl.Callback],
    rows: Rows[Any],
    options: TrainOptions,
    trainer: pl.Trainer,
    steps: StepsPerBlock,
) -> None:
    """Keep the cells of a run where its steps are made, and record these where that can be.

    Raises
    ------
    InvalidOptionError
        If cells are wanted on a device that cannot hold them.
    """
    device = trainer.strategy.root_device
    if trainer.world_size > 1:
        kept, plan.placement_reason = rows, "the cells are dealt to several processes"
    elif options.loader.num_workers:
        kept, plan.placement_reason = rows, "cells are taken ahead"
    elif device.type == "cpu":
        kept = choose_sparse_rows(plan.module, rows, options) or rows
        plan.placement_reason = "the processor works there"
    else:
        placement = choose_placement(rows, device, options.placement)
        kept, plan.placement, plan.placement_reason = (
            placement.rows,
            placement.where,
            placement.reason,
        )
    for blocks in plan.blocks:
        blocks.rows = kept
    plan.capture = choose_capture(options, callbacks, plan.module, steps, device, plan.placement)
    if plan.capture.wanted:
        plan.cuda_graph_step = CUDAGraphStep(plan, CUDAGraphCapturer(device), device)


def canonical_plateau(options: PlateauOptions | None, module: Module[Any]) -> PlateauOptions | None:
    """Schedule with its metric as it is called here."""
    if options is None:
        return None
    known = [
        *metric_names("train", module.extra_metric_names),
        *metric_names("validation", module.extra_metric_names),
    ]
    return dataclasses.replace(options, metric=canonical_name(options.metric, known))


def resume_hook(
    plan: TrainingPlan,
    trainer: pl.Trainer,
    state: TrainingState | None,
    carried: OptimizerCarryover | None,
) -> Callable[[], None] | None:
    """What a plan does once its optimizers are there; None for a first run."""
    if state is not None:
        plan.n_cells_seen = plan.n_cells_before = state.n_cells_seen
        plan.earlier_seconds = state.seconds
        plan.n_epochs_done = state.n_epochs
        plan.best = {best.monitor: best for best in state.best}
        advance_loops(trainer, state.n_epochs, state.n_steps)

        def go_on() -> None:
            restore_callbacks(trainer, state)
            restore_optimizers(trainer, state)

        return go_on
    return None if carried is None else lambda: carried.restore(trainer)


def run(
    trainer: pl.Trainer,
    plan: TrainingPlan,
    callbacks: Sequence[pl.Callback],
    on_interrupt: str,
) -> BaseException | None:
    """Run Lightning's loop with its own random numbers; what ended it, if it is to be raised."""
    error: BaseException | None = None
    keyboard = SigintGuard(plan, trainer)
    with (
        quiet_lightning(),
        restore_sigint_handler(),
        catch_stop_training(plan, callbacks),
        keyboard,
        retain_freed_memory(),
        isolated_rng(plan.seed, "training"),
    ):
        try:
            # A plan that can be cut anew is asked for its blocks.
            blocks: tuple[Any, ...] = () if isinstance(plan, ResizableTrainingPlan) else plan.blocks
            trainer.fit(plan, *blocks)
            if not plan.started:
                # A run that was complete already: its callbacks still bring back the best.
                for callback in callbacks:
                    callback.on_train_end(trainer, plan)
        except StopTraining as stop:
            plan.stop_reason = str(stop)
        except (Exception, KeyboardInterrupt, SystemExit) as failure:
            # Lightning turns Ctrl-C into SystemExit, with the interrupt as its context.
            error = failure.__context__ if is_interrupt(failure.__context__) else failure
    if is_interrupt(error):
        plan.interrupted = True
    if plan.interrupted and (error is None or is_interrupt(error)):
        aborted = keyboard.n_pressed > 1 or on_interrupt == "raise"
        return (error or KeyboardInterrupt()) if aborted else None
    if is_terminated(error, trainer):
        # The exit code that a shell gives to a process ended by SIGTERM.
        return SystemExit(128 + signal.SIGTERM)
    return error


def notify_on_stop(plan: TrainingPlan, reason: str) -> None:
    """Tell callbacks that the run has ended and its weights are final; none may spoil that."""
    try:
        plan.call_callbacks("on_stop", reason=reason)
    except Exception as failure:
        logger.warning("A callback failed after training: %s: %s", type(failure).__name__, failure)


def nan_error_or_warning(plan: TrainingPlan) -> TrainingError | None:
    """Error of a run in which something was not finite; None where it left weights to keep."""
    restored = any(best.restored for best in plan.best.values())
    if not restored and (plan.n_epochs_done < 2 or not weights_are_finite(plan.module)):
        return TrainingError(f"Training stopped: {plan.nan_event}. {NAN_ADVICE}")
    which = "best" if restored else "last finite"
    warn(
        f"Training stopped: {plan.nan_event}. The {which} weights are back. {NAN_ADVICE}",
        TrainingWarning,
    )
    return None


def should_keep_weights(
    trainer: pl.Trainer, plan: TrainingPlan, error: BaseException | None
) -> bool:
    """Whether the weights that a run left are worth keeping.

    They are not where nothing was trained. After an error they are if the best were brought back,
    if they are finite after Ctrl-C or a signal, or if they are finite after at least one whole
    epoch of a first run; a further run that failed is undone.
    """
    if trainer.fast_dev_run or plan.n_steps == 0:  # type: ignore[attr-defined]
        return False
    if error is None and not plan.interrupted:
        return True
    if any(best.restored for best in plan.best.values()):
        return True
    if plan.nan_event is not None:
        return False
    cut_off = plan.interrupted or is_terminated(error, trainer)
    learned = plan.n_epochs_done > 0 and plan.first_epoch == 0
    return weights_are_finite(plan.module) and (learned or cut_off)


def resume_identity(options: TrainOptions) -> dict[str, Any]:
    """Options that a run cannot change when it goes on, as plain values."""
    loader = dataclasses.asdict(options.loader)
    # Blocks that are taken ahead are the same blocks.
    loader.pop("num_workers")
    return {
        "optimizer": config_value(dataclasses.asdict(options.optimizer)),
        "loss_weights": dict(options.loss_weights),
        "loader": config_value(loader),
        "kl_warmup": config_value(dataclasses.asdict(options.warmup)),
        "plateau": config_value(dataclasses.asdict(options.plateau)) if options.plateau else None,
        "precision": str(options.trainer.get("precision", "32-true")),
    }


def run_config(options: TrainOptions, seed: int, max_epochs: int) -> dict[str, Any]:
    """All options of a run, as plain values for people to read."""
    values = config_value(dataclasses.asdict(options))
    return values | {"seed": seed, "max_epochs": max_epochs}


def config_value(value: Any) -> Any:
    """Value as what JSON can hold; what it cannot hold by the name it has in the program."""
    if isinstance(value, Mapping):
        return {str(k): config_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [config_value(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", None) or type(value).__name__


def make_split_blocks(
    rows: Rows[Any],
    cells: NDArray[np.int64],
    loader: LoaderOptions,
    seed: int,
    smallest: int,
    labels: NDArray[np.int64] | None = None,
    steps_per_block: int = 1,
) -> EpochBlocks[Any]:
    """Cells of one split, cut into blocks anew every epoch."""
    labelled = cells[:0] if labels is None else cells[labels[cells] >= 0]
    companions = None
    if labels is not None and len(labelled):
        companions = LabelledSampler(
            labelled,
            labels[labelled],
            loader.batch_size,
            seed=seed,
            n_per_label=loader.n_samples_per_label,
            shuffle=loader.shuffle,
        )
    return EpochBlocks(
        rows,
        cells,
        batch_size=loader.batch_size,
        seed=seed,
        shuffle=loader.shuffle,
        steps_per_block=steps_per_block,
        drop_last=loader.drop_last,
        smallest=smallest,
        prefetch=loader.num_workers,
        labelled_cells=companions,
    )


def smallest_batch(module: Module[Any], split: Split, loader: LoaderOptions) -> int:
    """Least number of cells of a training batch; a smaller rest joins the batch before it.

    Raises
    ------
    InvalidDataError
        If there is no cell to train on, or one where the network normalises over batches.
    InvalidOptionError
        If every batch would be one cell and the network normalises over batches.
    """
    still = set(module.frozen_weights.eval_modules)
    normalised = any(
        isinstance(part, torch.nn.BatchNorm1d) and name not in still
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
    """Sentence that says how a network is made without batch normalisation, if it can be."""
    has_option = hasattr(getattr(module, "config", None), "use_batch_norm")
    return " Or make the model with use_batch_norm='none'." if has_option else ""
