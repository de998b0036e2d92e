"""The end of a run: which weights stay, why it ended, and the report."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Timer

from cellvae.core.log import logger, warn
from cellvae.errors import TrainingError, TrainingWarning
from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping
from cellvae.train.callbacks.nan.nan_event import weights_are_finite
from cellvae.train.callbacks.nan.nan_guard import NAN_ADVICE, NaNGuard
from cellvae.train.lightning_adapter import all_batches_are_done
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.records.history import History
from cellvae.train.records.run_state import BestEpoch, RunState
from cellvae.train.records.training_report import Status, TrainingReport
from cellvae.train.resume.optimizer_carryover import OptimizerCarryover, make_carryover
from cellvae.train.run.preparation import PreparedRun
from cellvae.train.run.shared_signals import SharedSignals


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run, apart from the weights of the module."""

    history: History
    report: TrainingReport
    keep_weights: bool
    """Whether the module has weights of this run; otherwise those from before it are restored."""
    carryover: OptimizerCarryover | None = None
    """Optimizers for a further run."""
    error: BaseException | None = None


def conclude_run(run: PreparedRun, error: BaseException | None) -> RunResult:
    """Choose the weights, make the report, and call the hooks of the end of a run."""
    plan, trainer = run.plan, run.trainer
    if error is None and plan.run.nan_event is not None:
        error = nan_error_or_warning(plan)
    keep_weights = should_keep_weights(trainer, plan, error)
    if not keep_weights:
        plan.module.load_state_dict(run.weights_before)
    report = make_report(run, error)
    plan.run.conclude(report, weights_kept=keep_weights)
    if report.status == "interrupted":
        plan.call_callbacks("on_interrupt")
    call_on_stop(plan, report.reason)
    if report.status == "interrupted":
        logger.info("Training was interrupted; the model can be used and trained further.")
    return RunResult(
        history=plan.history,
        report=report,
        keep_weights=keep_weights,
        carryover=make_carryover(trainer, plan) if keep_weights and error is None else None,
        error=error,
    )


def call_on_stop(plan: TrainingPlan, reason: str) -> None:
    """Call `on_stop` of the callbacks; the weights are final, so errors are logged only."""
    try:
        plan.call_callbacks("on_stop", reason=reason)
    except Exception as failure:
        logger.warning("A callback failed after training: %s: %s", type(failure).__name__, failure)


def nan_error_or_warning(plan: TrainingPlan) -> TrainingError | None:
    """Error of a run in which something was not finite; None, and a warning, if weights are left.

    Weights are left if the best ones were restored, or if the last are finite after two epochs.
    """
    run = plan.run
    restored = any(best.restored for best in run.best.values())
    if not restored and (run.n_epochs_done < 2 or not weights_are_finite(plan.module)):
        return TrainingError(f"Training stopped: {run.nan_event}. {NAN_ADVICE}")
    which = "best" if restored else "last finite"
    warn(
        f"Training stopped: {run.nan_event}. The {which} weights are back. {NAN_ADVICE}",
        TrainingWarning,
    )
    return None


def should_keep_weights(
    trainer: pl.Trainer, plan: TrainingPlan, error: BaseException | None
) -> bool:
    """Whether the module keeps the weights of a run, rather than those from before it.

    It does not if nothing was trained. After an error it does if the best weights were restored,
    if they are finite after Ctrl-C or a signal, or if they are finite after at least one whole
    epoch of a first run; a further run that failed is undone.
    """
    run = plan.run
    if trainer.fast_dev_run or plan.n_steps == 0:  # type: ignore[attr-defined]
        return False
    if error is None and not run.interrupted:
        return True
    if any(best.restored for best in run.best.values()):
        return True
    if run.nan_event is not None:
        return False
    interrupted = run.interrupted or is_terminated(error, trainer)
    learned = run.n_epochs_done > 0 and plan.first_epoch == 0
    return weights_are_finite(plan.module) and (learned or interrupted)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a run was ended by Ctrl-C."""
    return isinstance(error, KeyboardInterrupt)


def is_terminated(error: BaseException | None, trainer: pl.Trainer) -> bool:
    """Whether a run was ended by SIGTERM, as cluster schedulers send it."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    shared = any(isinstance(c, SharedSignals) and c.terminated for c in callbacks)
    return isinstance(error, SystemExit) and (shared or trainer.received_sigterm)


def make_report(run: PreparedRun, error: BaseException | None) -> TrainingReport:
    """Report of a run that has ended."""
    plan, trainer, state = run.plan, run.trainer, run.start.state
    loop, facts = plan.step_loop, plan.run
    status, reason = run_status(run, error)
    best = best_for_report(facts)
    guard = next((c for c in run.callbacks if isinstance(c, NaNGuard)), None)
    seconds = facts.seconds
    return TrainingReport(
        status=status,
        reason=reason,
        epochs=facts.n_epochs_done,
        max_epochs=run.max_epochs,
        monitor=best.monitor if best else None,
        best_epoch=best.epoch if best else None,
        best_score=best.score if best else None,
        best_path=best.path if best else None,
        restored_epoch=best.epoch if best and best.restored else None,
        seconds=seconds,
        cells_per_second=facts.n_cells_seen / seconds if seconds else 0.0,
        seed=plan.seed,
        kl_weight=plan.history.last_numeric("kl_weight"),
        first_epoch=plan.first_epoch,
        resumed_epoch=state.first_epoch + state.n_epochs if state else None,
        n_skipped=guard.n_skipped if guard else 0,
        nan=guard.event.to_json() if guard and guard.event else None,
        peak_memory_mib=peak_memory(),
        peak_gpu_memory_mib=peak_gpu_memory(trainer),
        run_dir=str(run.start.run_dir) if run.start.run_dir is not None else None,
        steps_per_block=loop.steps_per_block.number,
        steps_reason=loop.steps_per_block.reason,
        capture_reason=loop.capture_reason,
        placement=loop.placement,
        placement_reason=loop.placement_reason,
    )


def peak_memory() -> float | None:
    """Peak memory of the process, in MiB; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_gpu_memory(trainer: pl.Trainer) -> float | None:
    """Peak memory of tensors on the CUDA device of a run, in MiB; None on other devices."""
    device = trainer.strategy.root_device
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def best_for_report(run: RunState) -> BestEpoch | None:
    """Best epoch in the report: the last one restored, else the last one found."""
    found = list(run.best.values())
    restored = [best for best in found if best.restored]
    return restored[-1] if restored else found[-1] if found else None


def run_status(run: PreparedRun, error: BaseException | None) -> tuple[Status, str]:
    """Why a run ended, as a status and as a sentence."""
    plan, trainer, facts = run.plan, run.trainer, run.plan.run
    if is_interrupt(error) or facts.interrupted:
        return "interrupted", f"interrupted by hand in epoch {plan.epoch}"
    if is_terminated(error, trainer):
        return "terminated", f"terminated by a signal in epoch {plan.epoch}"
    if facts.nan_event is not None:
        return "not_finite", facts.nan_event
    if error is not None:
        return "failed", f"{type(error).__name__} in epoch {plan.epoch}: {error}"
    for callback in run.callbacks:
        if isinstance(callback, EarlyStopping) and callback.reason is not None:
            return "stopped_early", f"stopped early: {callback.reason}"
    if facts.stop_reason is not None:
        return "stopped_early", f"stopped early: {facts.stop_reason}"
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    timed_out = any((timer.time_remaining() or 0) <= 0 for timer in timers)
    # The time limit may be reached within the last epoch, which counts as done, or at its end.
    cut_off = timed_out and not all_batches_are_done(trainer)
    if facts.n_epochs_done >= run.max_epochs and not cut_off:
        return "completed", "all epochs done"
    if timed_out:
        return "time_limit", "the time limit was reached"
    return "stopped_early", "stopped early by a callback or a limit of the trainer"
