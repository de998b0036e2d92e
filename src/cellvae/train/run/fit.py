"""One training run, from options to a trained module and a report."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.core.platform.launcher import find_launcher
from cellvae.core.seeds import isolated_rng
from cellvae.data.batches.split import Split
from cellvae.errors import StopTraining
from cellvae.nn.sync_batch_norm import synchronise_batch_norm
from cellvae.train.callbacks.monitoring.thread_contention import ThreadContention
from cellvae.train.lightning_adapter import process_timeout
from cellvae.train.loop.freezing import restore_frozen_after_step
from cellvae.train.loop.lightning_quiet import quiet_lightning
from cellvae.train.loop.model_files import ModelFiles
from cellvae.train.options.train_options import TrainOptions
from cellvae.train.run.end_of_run import RunResult, conclude_run, is_interrupt, is_terminated
from cellvae.train.run.interruption import (
    SigintGuard,
    catch_stop_training,
    restore_sigint_handler,
)
from cellvae.train.run.lost_process import explain_lost_process
from cellvae.train.run.preparation import PreparedRun, prepare_run
from cellvae.train.run.process_agreement import ProcessAgreement
from cellvae.train.run.run_start import RunStart
from cellvae.train.run.shared_signals import SharedSignals
from cellvae.train.search.batch_size_search import ResizableTrainingPlan


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

    In pseudocode, where the loop over epochs and blocks is Lightning's::

        prepare: callbacks, training plan, blocks of cells, trainer; copy the weights
        for epoch in epochs:
            seed the random numbers with the number of the epoch
            for block in blocks of the shuffled training cells:
                for cells in steps of the block:  # made by Lightning if there is one, by StepLoop
                    loss = module.loss(rows.take(cells), kl_weight)
                    loss.backward()
                    optimizer.step()
            if a metric of it is needed: validate
            add the metrics of the epoch to the history; stop if a loss is not finite
            call on_epoch_complete of the callbacks
        conclude: choose the weights, make the report, call on_stop of the callbacks

    However the run ends, the module is left in eval mode: with the best weights if a metric was
    monitored, else the last finite ones, or those from before the run if it failed and left none
    to keep. An exception that ended the run is in the result, not raised.

    Parameters
    ----------
    module
        The network and its loss; changed in place.
    rows
        All cells.
    split
        Which cells are for training and validation.
    options
        Options of the run.
    seed
        Seed of the run.
    callbacks
        The user's callbacks.
    start
        Where the run starts; None for a first run.
    files
        Saves the model, for checkpoints.
    labels
        Label of every cell, -1 if unknown, for a model that learns labels; None for others.

    Raises
    ------
    InvalidOptionError
        If options contradict each other or the data, before training starts.
    ResumeError
        If the run to resume had another model, other data or hyperparameters.
    """
    run = prepare_run(
        module,
        rows,
        split,
        options,
        seed=seed,
        callbacks=callbacks,
        start=start or RunStart(),
        files=files,
        labels=labels,
    )
    module.train()
    with restore_frozen_after_step(module):
        error = run_epochs(run)
        module.to(run.trainer.strategy.root_device, run.dtype).eval()
    return conclude_run(run, error)


def shared_batch_norm(run: PreparedRun) -> AbstractContextManager[None]:
    """Context in which several processes normalise over the cells of all of them."""
    plan, trainer = run.plan, run.trainer
    if trainer.world_size == 1 or not run.sync_batch_norm:
        return nullcontext()
    timeout = process_timeout(trainer)
    return synchronise_batch_norm(plan.module, *plan.step.own_modules, timeout=timeout)


def run_epochs(run: PreparedRun) -> BaseException | None:
    """Run Lightning's loop with its own random numbers; return the error to be raised, if any."""
    plan, trainer = run.plan, run.trainer
    error: BaseException | None = None
    sigint = SigintGuard(plan, trainer)
    trainer.callbacks += [ThreadContention()]  # type: ignore[attr-defined]
    if trainer.world_size > 1:
        trainer.callbacks += [ProcessAgreement(), SharedSignals()]  # type: ignore[attr-defined]
    with (
        quiet_lightning(plan.known_metrics),
        restore_sigint_handler(),
        catch_stop_training(plan, run.callbacks),
        sigint,
        shared_batch_norm(run),
        isolated_rng(plan.seed, "training"),
        plan.validation_noise,  # still open if validation fails
    ):
        try:
            # A resizable plan has its blocks requested by Lightning.
            blocks: tuple[Any, ...] = () if isinstance(plan, ResizableTrainingPlan) else plan.blocks
            trainer.fit(plan, *blocks)
            if not plan.run.started:
                # The resumed run was complete already: its callbacks still restore the best epoch.
                for callback in run.callbacks:
                    callback.on_train_end(trainer, plan)
        except StopTraining as stop:
            plan.run.note_stop(str(stop))
        except (Exception, KeyboardInterrupt, SystemExit) as failure:
            # Lightning turns Ctrl-C into SystemExit, with the interrupt as its context.
            cause = failure.__context__
            error = cause if is_interrupt(cause) else explain_lost_process(failure, trainer)
        finally:
            for reading in plan.blocks:
                reading.stop_reading()
    if is_interrupt(error):
        plan.run.note_interrupt()
    if plan.run.interrupted and (error is None or is_interrupt(error)):
        aborted = sigint.n_pressed > 1 or run.options.on_interrupt == "raise"
        return (error or KeyboardInterrupt()) if aborted else None
    if is_terminated(error, trainer):
        # The exit code of a process that SIGTERM ended, as a shell reports it. Lightning would
        # kill the process that it was started from if one that it has started reported it.
        launched = find_launcher() is None and trainer.global_rank > 0
        return SystemExit(0 if launched else 128 + signal.SIGTERM)
    return error
