"""Adapter of names of Lightning that are not public: the only place where they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

if TYPE_CHECKING:
    from datetime import timedelta


def all_batches_are_done(trainer: pl.Trainer) -> bool:
    """Whether all batches of the current epoch have been trained on."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def process_timeout(trainer: pl.Trainer) -> timedelta | None:
    """How long the processes of a run wait for each other; None for torch's default."""
    return getattr(trainer.strategy, "_timeout", None)


def make_state_key(callback: pl.Callback, monitor: object, mode: str) -> str:
    """Key of a callback's state in a checkpoint, by its class, what it monitors and how."""
    return callback._generate_state_key(monitor=monitor, mode=mode)


def logs_model(logger: Any) -> bool:
    """Whether a logger of MLflow or Weights & Biases was made with `log_model`."""
    return logger._log_model is True or logger._log_model == "all"
