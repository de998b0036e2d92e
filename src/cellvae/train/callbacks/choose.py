"""Which callbacks a run gets, and whether what they monitor will be measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    Checkpoint,
    ModelCheckpoint,
    ProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.checkpoint import SaveCheckpoint
from cellvae.train.callbacks.early_stopping import EarlyStopping
from cellvae.train.callbacks.learning_rate import RecordLearningRate
from cellvae.train.callbacks.progress import EpochBar
from cellvae.train.metrics import check_monitor, is_validation
from cellvae.train.options import TrainOptions


def build_callbacks(options: TrainOptions, extra: Sequence[pl.Callback] = ()) -> list[pl.Callback]:
    """Callbacks of a run: those asked for by options, then the user's own."""
    chosen: list[pl.Callback] = []
    if options.learning_rate_monitor or options.plateau is not None:
        chosen.append(RecordLearningRate())
    if options.progress.enabled and not any(isinstance(c, ProgressBar) for c in extra):
        chosen.append(
            EpochBar(options.progress.refresh_rate)
            if options.progress.simple
            else TQDMProgressBar()
        )
    if options.early_stopping is not None:
        stop = options.early_stopping
        chosen.append(
            EarlyStopping(
                stop.monitor,
                min_delta=stop.min_delta,
                patience=stop.patience,
                mode=stop.mode,
                warmup_epochs=stop.warmup_epochs,
                restore_best=stop.restore_best,
            )
        )
    if options.checkpoint_monitor is not None and not any(isinstance(c, Checkpoint) for c in extra):
        chosen.append(SaveCheckpoint(monitor=options.checkpoint_monitor))
    return [*chosen, *extra]


def monitored_by(callbacks: Sequence[pl.Callback], options: TrainOptions) -> list[str]:
    """Names of all metrics that somebody follows."""
    names = [
        c.monitor
        for c in callbacks
        if isinstance(c, LightningEarlyStopping | SaveCheckpoint | ModelCheckpoint)
        and c.monitor is not None
    ]
    return names + ([options.plateau.metric] if options.plateau is not None else [])


def check_monitors(
    monitored: Sequence[str],
    known: Collection[str],
    callbacks: Sequence[pl.Callback],
    *,
    n_validation: int,
    n_train: int,
) -> bool:
    """Check what is monitored before training; tell whether validation is needed for it.

    Raises
    ------
    InvalidOptionError
        If nothing will measure a metric, or there are no validation cells for it.
    """
    own = type(EpochBar()).__module__.rpartition(".")[0]
    more_may_come = any(
        not type(c).__module__.startswith((own, "lightning.", "pytorch_lightning."))
        for c in callbacks
    )
    for name in monitored:
        check_monitor(name, known, more_may_come=more_may_come)
        if is_validation(name) and n_validation == 0:
            raise InvalidOptionError(
                f"'{name}' is monitored but there are no validation cells "
                f"({n_train:,} cells are for training). Leave some with train_size or "
                "validation_size, or monitor 'elbo_train'."
            )
    return any(is_validation(name) for name in monitored)
