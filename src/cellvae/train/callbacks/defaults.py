"""Which callbacks a run gets, in which order, and whether what they follow will be measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    Checkpoint,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.checkpointing.save_checkpoint import SaveCheckpoint
from cellvae.train.callbacks.checkpointing.training_checkpoint import TrainingCheckpoint
from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping
from cellvae.train.callbacks.ema import EMA
from cellvae.train.callbacks.monitoring.lr_monitor import LRMonitor
from cellvae.train.callbacks.monitoring.progress import EpochBar
from cellvae.train.callbacks.monitoring.run_logger import RunLogger
from cellvae.train.callbacks.nan.nan_guard import NaNGuard
from cellvae.train.callbacks.protocols import FollowsMetrics, Group, HasGroup, ProducesMetrics
from cellvae.train.callbacks.scheduling.lr_scheduler import LRSchedulerCallback
from cellvae.train.callbacks.scheduling.stages import Stages
from cellvae.train.options.metric_names import canonical_name, check_monitor, is_validation
from cellvae.train.options.train_options import TrainOptions


def build_callbacks(
    options: TrainOptions,
    extra: Sequence[pl.Callback] = (),
    *,
    state_dir: Path | None = None,
    run_dir: Path | None = None,
) -> list[pl.Callback]:
    """Callbacks of a run: the defaults and the user's own, each in its place.

    Parameters
    ----------
    options
        Options of the run.
    extra
        The user's own callbacks; the sequence stays as it is.
    state_dir
        Where the state of the run is kept; None where it is not.
    run_dir
        Folder of the run; None where it has none.

    Raises
    ------
    InvalidOptionError
        If one callback comes twice.
    """
    check_no_duplicates(extra)
    chosen = default_callbacks(options, extra, state_dir=state_dir, run_dir=run_dir)
    return sorted([*chosen.values(), *extra], key=callback_group)


def default_callbacks(
    options: TrainOptions,
    extra: Sequence[pl.Callback] = (),
    *,
    state_dir: Path | None = None,
    run_dir: Path | None = None,
) -> dict[str, pl.Callback]:
    """Callbacks of the options, by name; one of the user replaces the default of its class."""

    def is_needed(name: str, *classes: type) -> bool:
        return name not in options.disabled_callbacks and not any(
            isinstance(c, classes) for c in extra
        )

    chosen: dict[str, pl.Callback] = {}
    if run_dir is not None and is_needed("run_logger", RunLogger):
        chosen["run_logger"] = RunLogger(run_dir)
    if state_dir is not None and is_needed("training_checkpoint", TrainingCheckpoint):
        chosen["training_checkpoint"] = TrainingCheckpoint(state_dir)
    if options.on_nan != "ignore" and is_needed("nan_guard", NaNGuard):
        chosen["nan_guard"] = NaNGuard(options.on_nan)
    scheduled = (
        options.plateau is not None
        or options.lr_schedule is not None
        or any(isinstance(c, LRSchedulerCallback | Stages) for c in extra)
    )
    recorded = scheduled if options.learning_rate_monitor is None else options.learning_rate_monitor
    if (recorded or options.plateau is not None) and is_needed(
        "learning_rate", LRMonitor, LearningRateMonitor
    ):
        chosen["learning_rate"] = LRMonitor()
    if options.accumulate is not None:
        chosen["accumulate"] = GradientAccumulationScheduler(dict(options.accumulate))
    if options.lr_schedule is not None:
        chosen["lr_schedule"] = LRSchedulerCallback(options.lr_schedule)
    if options.ema_decay is not None and is_needed("ema", EMA):
        chosen["ema"] = EMA(options.ema_decay)
    if options.progress.enabled and is_needed("progress", ProgressBar):
        rate = options.progress.refresh_rate
        chosen["progress"] = EpochBar(rate) if options.progress.simple else TQDMProgressBar()
    stop = options.early_stopping
    if stop is not None and not any(
        isinstance(c, EarlyStopping) and {*stop.monitors} <= {*metrics_followed_by(c)}
        for c in extra
    ):
        chosen["early_stopping"] = EarlyStopping(
            stop.monitor,
            min_delta=stop.min_delta,
            patience=stop.patience,
            verbose=stop.verbose,
            mode=stop.mode,
            combine=stop.combine,
            warmup_epochs=stop.warmup_epochs,
            restore_best=stop.restore_best,
            check_finite=stop.check_finite,
            baseline=stop.baseline,
            baseline_epochs=stop.baseline_epochs,
            stopping_threshold=stop.stopping_threshold,
            divergence_threshold=stop.divergence_threshold,
            patience_epochs=stop.patience_epochs,
        )
    if options.checkpoint_monitor is not None and not any(isinstance(c, Checkpoint) for c in extra):
        chosen["checkpoint"] = SaveCheckpoint(monitor=options.checkpoint_monitor)
    return chosen


def callback_group(callback: pl.Callback) -> Group:
    """Place of a callback in a run; those that do not say belong to the producers of metrics."""
    if isinstance(callback, HasGroup):
        return callback.group
    if isinstance(callback, LightningEarlyStopping):
        return Group.STOPPER
    if isinstance(callback, Checkpoint):
        return Group.CHECKPOINT
    return Group.RECORDER if isinstance(callback, ProgressBar) else Group.PRODUCER


def check_no_duplicates(callbacks: Sequence[pl.Callback]) -> None:
    """Check that no callback comes twice.

    Raises
    ------
    InvalidOptionError
        If one does.
    """
    for i, callback in enumerate(callbacks):
        if any(callback is other for other in callbacks[:i]):
            raise InvalidOptionError(
                f"Expected different callbacks; got the same {type(callback).__name__} twice."
            )


def metrics_followed_by(callback: pl.Callback) -> list[str]:
    """Names of the metrics that a callback follows."""
    if isinstance(callback, FollowsMetrics):
        return list(callback.followed_metrics())
    if isinstance(callback, LightningEarlyStopping | SaveCheckpoint | ModelCheckpoint):
        return [callback.monitor] if callback.monitor is not None else []
    monitor = vars(callback).get("monitor")
    return [monitor] if isinstance(monitor, str) else []


def monitored_metrics(
    callbacks: Sequence[pl.Callback], options: TrainOptions, known: Collection[str]
) -> list[str]:
    """Names of all monitored metrics; for our callbacks the canonical names.

    Callbacks of others look a metric up by exactly the name that they were given.
    """
    known = [*known, *produced_metrics(callbacks)]
    names = [
        canonical_name(name, known) if isinstance(callback, FollowsMetrics) else name
        for callback in callbacks
        for name in metrics_followed_by(callback)
    ]
    plateau = options.plateau
    return names + ([canonical_name(plateau.metric, known)] if plateau is not None else [])


def produced_metrics(callbacks: Sequence[pl.Callback]) -> list[str]:
    """Names of all metrics that callbacks say they log."""
    return [
        name for c in callbacks if isinstance(c, ProducesMetrics) for name in c.produced_metrics()
    ]


def check_monitors(
    monitored: Sequence[str],
    known: Collection[str],
    callbacks: Sequence[pl.Callback],
    *,
    n_validation: int,
    n_train: int,
) -> bool:
    """Check monitored metrics before training; returns whether validation is needed.

    It is needed if a metric of validation cells is monitored, or logged by a callback.

    Raises
    ------
    InvalidOptionError
        If nothing will measure a metric, or there are no validation cells for it.
    """
    own = __name__.rpartition(".")[0]
    more_may_come = any(
        not type(c).__module__.startswith((own, "lightning.", "pytorch_lightning."))
        and not isinstance(c, ProducesMetrics)
        or isinstance(c, LambdaCallback)
        for c in callbacks
    )
    produced = produced_metrics(callbacks)
    twice = sorted({name for name in produced if produced.count(name) > 1})
    if twice:
        raise InvalidOptionError(
            f"Expected each metric from one callback; got '{twice[0]}' from two. "
            "Give one of them another prefix."
        )
    for name in monitored:
        check_monitor(name, [*known, *produced], more_may_come=more_may_come)
    needed = [name for name in (*monitored, *produced) if is_validation(name)]
    if needed and n_validation == 0:
        raise InvalidOptionError(
            f"'{needed[0]}' is monitored but there are no validation cells "
            f"({n_train:,} cells are for training). Leave some with train_size or "
            "validation_size, or monitor 'elbo_train'."
        )
    return bool(needed)
