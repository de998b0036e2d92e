"""Why a run ended, and the report of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Timer

from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping
from cellvae.train.callbacks.nan.nan_guard import NaNGuard
from cellvae.train.loop.training_plan import BestEpoch, TrainingPlan
from cellvae.train.records.training_report import Status, TrainingReport


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a run was ended by Ctrl-C."""
    return isinstance(error, KeyboardInterrupt)


def is_terminated(error: BaseException | None, trainer: pl.Trainer) -> bool:
    """Whether a run was ended by SIGTERM, as schedulers of clusters send it."""
    return isinstance(error, SystemExit) and trainer.received_sigterm


def make_report(
    trainer: pl.Trainer,
    plan: TrainingPlan,
    max_epochs: int,
    seconds: float,
    seed: int,
    callbacks: Sequence[pl.Callback],
    error: BaseException | None,
    *,
    resumed_epoch: int | None = None,
    run_dir: Path | None = None,
) -> TrainingReport:
    """Report of a run that has ended."""
    status, reason = run_status(trainer, plan, max_epochs, callbacks, error)
    best = best_for_report(plan, callbacks)
    guard = next((c for c in callbacks if isinstance(c, NaNGuard)), None)
    return TrainingReport(
        status=status,
        reason=reason,
        epochs=plan.n_epochs_done,
        max_epochs=max_epochs,
        monitor=best.monitor if best else None,
        best_epoch=best.epoch if best else None,
        best_score=best.score if best else None,
        best_path=best.path if best else None,
        restored_epoch=best.epoch if best and best.restored else None,
        seconds=seconds,
        cells_per_second=plan.n_cells_seen / seconds if seconds else 0.0,
        seed=seed,
        kl_weight=plan.history.last_numeric("kl_weight"),
        first_epoch=plan.first_epoch,
        resumed_epoch=resumed_epoch,
        n_skipped=guard.n_skipped if guard else 0,
        nan=guard.event.to_json() if guard and guard.event else None,
        peak_memory_mib=peak_memory(),
        peak_gpu_memory_mib=peak_gpu_memory(trainer),
        run_dir=str(run_dir) if run_dir is not None else None,
        steps_per_block=plan.steps.number,
        steps_reason=plan.steps.reason,
        capture_reason=plan.capture.reason
        if plan.cuda_graph_step is None
        else plan.cuda_graph_step.reason,
        placement=plan.placement,
        placement_reason=plan.placement_reason,
    )


def peak_memory() -> float | None:
    """Most memory that the process has had, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_gpu_memory(trainer: pl.Trainer) -> float | None:
    """Most memory that tensors have had on the CUDA device of a run, in MiB."""
    device = trainer.strategy.root_device
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def best_for_report(plan: TrainingPlan, callbacks: Sequence[pl.Callback]) -> BestEpoch | None:
    """What the report calls best: what was brought back last, else what was found last."""
    found = list(plan.best.values())
    restored = [best for best in found if best.restored]
    return restored[-1] if restored else found[-1] if found else None


def run_status(
    trainer: pl.Trainer,
    plan: TrainingPlan,
    max_epochs: int,
    callbacks: Sequence[pl.Callback],
    error: BaseException | None,
) -> tuple[Status, str]:
    """Why a run ended, as a status and as a sentence."""
    if is_interrupt(error) or plan.interrupted:
        return "interrupted", f"interrupted by hand in epoch {plan.epoch}"
    if is_terminated(error, trainer):
        return "terminated", f"terminated by a signal in epoch {plan.epoch}"
    if plan.nan_event is not None:
        return "not_finite", plan.nan_event
    if error is not None:
        return "failed", f"{type(error).__name__} in epoch {plan.epoch}: {error}"
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.reason is not None:
            return "stopped_early", f"stopped early: {callback.reason}"
    if plan.stop_reason is not None:
        return "stopped_early", f"stopped early: {plan.stop_reason}"
    if plan.n_epochs_done >= max_epochs:
        return "completed", "all epochs done"
    if any(isinstance(c, Timer) and (c.time_remaining() or 0) <= 0 for c in trainer.callbacks):  # type: ignore[attr-defined]
        return "time_limit", "the time limit was reached"
    return "stopped_early", "stopped early by a callback or a limit of the trainer"
