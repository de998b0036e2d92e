"""A Lightning trainer from options, every argument named."""

from __future__ import annotations

import os
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

# Steps between two entries of the logger; runs with fewer steps an epoch log each.
LOG_EVERY_N_STEPS = 10
LIMIT = "CELLVAE_LIMIT_BATCHES"
"""Name of the environment variable with the most batches of an epoch, to try a script quickly."""


REFUSALS = (AttributeError, MisconfigurationException, RuntimeError, TypeError, ValueError)
"""What Lightning's trainer raises for arguments that it cannot take."""


def make_trainer(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    *,
    max_epochs: int,
    n_batches: int,
    validate_every: int | None,
    root: Path | None = None,
) -> pl.Trainer:
    """Trainer of a run, quiet by default; further arguments of the user's come last.

    Raises
    ------
    InvalidOptionError
        If Lightning refuses an argument.
    """
    arguments: dict[str, Any] = {
        "max_epochs": max_epochs,
        "accelerator": pick_accelerator(options.accelerator),
        "devices": pick_devices(options.devices),
        "callbacks": list(callbacks),
        # Without validation cells 1 means never, and lets stock callbacks look at train metrics.
        "check_val_every_n_epoch": validate_every or 1,
        "logger": False,
        "log_every_n_steps": min(LOG_EVERY_N_STEPS, n_batches),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        **{name: as_python_number(value) for name, value in options.trainer.items()},
    }
    arguments["strategy"] = pick_strategy(arguments.get("strategy", "auto"), arguments["devices"])
    if root is not None:
        arguments.setdefault("default_root_dir", root)
    if (limit := os.environ.get(LIMIT)) is not None:
        arguments.setdefault("limit_train_batches", int(limit))
        arguments.setdefault("limit_val_batches", int(limit))
    if arguments["logger"] in (None, False):
        # Lightning's own trainer has a logger by default, and some of its callbacks count on it.
        needed = any(needs_logger(callback) for callback in callbacks)
        arguments["logger"] = QuietLogger() if needed else False
    try:
        return pl.Trainer(**arguments)
    except REFUSALS as failure:
        raise InvalidOptionError(f"Lightning's Trainer refused an argument: {failure}") from failure


def as_python_number(value: Any) -> Any:
    """Number of Python in place of one of NumPy, which Lightning's trainer refuses."""
    return value.item() if isinstance(value, np.generic) else value


def pick_accelerator(accelerator: str) -> str:
    """Accelerator for Lightning; `"auto"` is a CUDA device if there is one, else the CPU."""
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def pick_devices(devices: int | str | Sequence[int]) -> Any:
    """Devices for Lightning; `"auto"` is one.

    Raises
    ------
    InvalidOptionError
        If there are none.
    """
    wanted = list(devices) if isinstance(devices, tuple) else devices
    if wanted in (0, "0", []):
        raise InvalidOptionError(f"Expected devices to be at least one; got {devices!r}.")
    return 1 if wanted == "auto" else wanted


def pick_strategy(strategy: Any, devices: Any) -> Any:
    """How several devices work together; one process each, of which all keep the same weights.

    Parts of a network that a loss does not use (the library encoder where sizes are observed) must
    not hold the others up.

    Raises
    ------
    InvalidOptionError
        If the strategy trains in processes that leave this one without its results.
    """
    if isinstance(strategy, str) and strategy.endswith(("_spawn", "_fork", "_notebook")):
        raise InvalidOptionError(
            f"Expected strategy='ddp' for several devices, in a script; got {strategy!r}. It "
            "trains in processes of its own, and history and report would be lost with them."
        )
    if strategy in ("auto", "ddp") and devices not in (1, "1", [0], (0,)):
        return "ddp_find_unused_parameters_true"
    return strategy


def stop_after_batch(trainer: pl.Trainer) -> None:
    """Make a trainer stop after this batch, even before `min_epochs` or `min_steps`."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None
