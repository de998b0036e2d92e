"""Lightning's trainer from the options of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cellvae.errors import InvalidOptionError
from cellvae.train.loop.lightning_quiet import QuietLogger, needs_logger
from cellvae.train.options.train_options import TrainOptions

LOG_EVERY_N_STEPS = 10
"""Steps between two entries of the logger, at most those of an epoch."""
LIMIT_VARIABLE = "CELLVAE_LIMIT_BATCHES"
"""Environment variable with the maximal number of batches per epoch, to try a script quickly."""
REFUSALS = (AttributeError, MisconfigurationException, RuntimeError, TypeError, ValueError)
"""Exceptions that Lightning's trainer raises for invalid kwargs."""


def make_trainer(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    *,
    max_epochs: int,
    n_batches: int,
    validate_every: int | None,
    root: Path | None = None,
) -> pl.Trainer:
    """Make the trainer of a run, quiet by default; the user's arguments override the defaults.

    Raises
    ------
    InvalidOptionError
        If Lightning refuses an argument.
    """
    kwargs: dict[str, Any] = {
        "max_epochs": max_epochs,
        "accelerator": pick_accelerator(options.accelerator),
        "devices": pick_devices(options.devices),
        "num_nodes": options.num_nodes,
        "callbacks": list(callbacks),
        # Without validation cells 1 means never; stock callbacks can monitor train metrics.
        "check_val_every_n_epoch": validate_every or 1,
        "logger": False,
        "log_every_n_steps": min(LOG_EVERY_N_STEPS, n_batches),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        **{name: as_python_number(value) for name, value in options.trainer.items()},
    }
    kwargs["strategy"] = pick_strategy(
        kwargs.get("strategy", "auto"), kwargs["devices"], kwargs["num_nodes"]
    )
    if root is not None:
        kwargs.setdefault("default_root_dir", root)
    if (limit := os.environ.get(LIMIT_VARIABLE)) is not None:
        kwargs.setdefault("limit_train_batches", int(limit))
        kwargs.setdefault("limit_val_batches", int(limit))
    if kwargs["logger"] in (None, False):
        # Lightning's own trainer has a logger by default, and some of its callbacks count on it.
        needed = any(needs_logger(callback) for callback in callbacks)
        kwargs["logger"] = QuietLogger() if needed else False
    try:
        return pl.Trainer(**kwargs)
    except REFUSALS as failure:
        raise InvalidOptionError(f"Lightning's Trainer refused an argument: {failure}") from failure


def as_python_number(value: Any) -> Any:
    """Python number from a NumPy scalar, which Lightning's trainer refuses; others unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def pick_accelerator(accelerator: str) -> str:
    """Choose the accelerator; `"auto"` is a CUDA device if there is one, else the CPU."""
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def pick_devices(devices: int | str | Sequence[int]) -> Any:
    """Choose the devices; `"auto"` is one.

    Raises
    ------
    InvalidOptionError
        If no device is requested.
    """
    requested = list(devices) if isinstance(devices, tuple) else devices
    if requested in (0, "0", []):
        raise InvalidOptionError(f"Expected devices to be at least one; got {devices!r}.")
    return 1 if requested == "auto" else requested


def pick_strategy(strategy: Any, devices: Any, num_nodes: int = 1) -> Any:
    """Choose the strategy for several devices; DDP with one process each by default.

    DDP must allow for parameters that a loss does not use, such as the library encoder where the
    library size is observed.

    Raises
    ------
    InvalidOptionError
        If the strategy trains in processes that leave this one without its results, or several
        devices are requested where there is no script.
    """
    if isinstance(strategy, str) and strategy.endswith(("_spawn", "_fork", "_notebook")):
        raise InvalidOptionError(
            f"Expected strategy='ddp' for several devices, in a script; got {strategy!r}. It "
            "trains in processes of its own, and history and report would be lost with them."
        )
    several = num_nodes > 1 or devices not in (1, "1", [0], (0,))
    if strategy in ("auto", "ddp") and several and hasattr(sys, "ps1"):
        raise InvalidOptionError(
            f"Expected one device in a notebook or console; got devices={devices!r}. Several "
            "devices have a process each, which runs the same script: save one and start it with "
            "python."
        )
    if strategy in ("auto", "ddp") and several:
        return "ddp_find_unused_parameters_true"
    return strategy


def stop_after_batch(trainer: pl.Trainer) -> None:
    """Make a trainer stop after this batch, even before `min_epochs` or `min_steps`."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None
