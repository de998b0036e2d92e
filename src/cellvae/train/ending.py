"""Why a run ended, and the report of it."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from cellvae.train.callbacks.early_stopping import EarlyStopping
from cellvae.train.plan import Best, Plan
from cellvae.train.report import Status, TrainingReport


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a run was ended by Ctrl-C."""
    return isinstance(error, KeyboardInterrupt)


def make_report(
    trainer: pl.Trainer,
    plan: Plan,
    max_epochs: int,
    seconds: float,
    seed: int,
    callbacks: Sequence[pl.Callback],
    error: BaseException | None,
) -> TrainingReport:
    """Report of a run that has ended."""
    status, reason = ending(trainer, plan, max_epochs, callbacks, error)
    best = chief(plan, callbacks)
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
        kl_weight=plan.history.last("kl_weight"),
    )


def chief(plan: Plan, callbacks: Sequence[pl.Callback]) -> Best | None:
    """What the report calls best: what was brought back last, else what was found last."""
    found = list(plan.best.values())
    restored = [best for best in found if best.restored]
    return restored[-1] if restored else found[-1] if found else None


def ending(
    trainer: pl.Trainer,
    plan: Plan,
    max_epochs: int,
    callbacks: Sequence[pl.Callback],
    error: BaseException | None,
) -> tuple[Status, str]:
    """Why a run ended, as a status and as a sentence."""
    if is_interrupt(error):
        return "interrupted", f"interrupted by hand in epoch {plan.epoch}"
    if plan.not_finite is not None:
        return "not_finite", plan.not_finite
    if error is not None:
        return "failed", f"{type(error).__name__} in epoch {plan.epoch}: {error}"
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.reason is not None:
            return "stopped_early", f"stopped early: {callback.reason}"
    if plan.n_epochs_done >= max_epochs:
        return "completed", "all epochs done"
    if any(isinstance(c, Timer) and (c.time_remaining() or 0) <= 0 for c in trainer.callbacks):  # type: ignore[attr-defined]
        return "time_limit", "the time limit was reached"
    return "stopped_early", "stopped early by a callback or a limit of the trainer"
