"""A run leaves the process as it was, whichever hook fails."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import threading
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from cellvae.errors import TrainingWarning
from cellvae.model import SCVI

pytestmark = pytest.mark.trains

HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_step_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_step_end",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_epoch_complete",
    "on_train_end",
    "on_fit_end",
    "teardown",
)
CALLED_ONCE = ("setup", "on_fit_start", "on_train_start", "on_train_end", "on_fit_end", "teardown")
LOGGERS = ("cellvae", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities")


@pytest.fixture(autouse=True, scope="module")
def only_new_garbage() -> None:
    """Let the collections of these tests pass over what earlier tests have left."""
    gc.collect()
    gc.freeze()


def failing(hook: str, error: type[BaseException]) -> pl.Callback:
    """Callback that fails the second time that a hook is called, or the only time."""
    calls: list[None] = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(None)
        if len(calls) == (1 if hook in CALLED_ONCE else 2):
            raise error("disk full")

    hooks = dict.fromkeys(("on_step_start", "on_step_end"), lambda *_: None)
    return type("Failing", (pl.Callback,), (hooks if hook in hooks else {}) | {hook: fail})()


def process_state() -> dict[str, Any]:
    """What a run may change in its process, after the garbage of the run is collected."""
    gc.collect()
    numpy_state = np.random.get_state()
    return {
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": (numpy_state[1].tolist(), *numpy_state[2:]),  # type: ignore[index]
        "random": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads of torch": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "loggers": [
            (log.level, log.disabled, list(log.filters), list(log.handlers))
            for log in map(logging.getLogger, LOGGERS)
        ],
        "environment": dict(os.environ),
    }


def train(model: SCVI, *callbacks: pl.Callback) -> None:
    model.train(
        2,
        batch_size=32,
        callbacks=list(callbacks),
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        accelerator="cpu",
        seed=0,
    )


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_hook_that_fails_leaves_the_process_as_it_was(
    model: SCVI, hook: str, error: type[BaseException]
) -> None:
    train(model)  # loads what is loaded once
    before, threads = process_state(), set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        try:
            train(model, failing(hook, error))
        except error as raised:
            assert "disk full" in str(raised) or error is KeyboardInterrupt
        else:
            assert error is KeyboardInterrupt
    assert_same(process_state(), before)
    assert set(threading.enumerate()) <= threads
    assert not model.module.training
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    train(model)  # what the failed run has left is freed now
    assert_same(process_state(), before)


def assert_same(state: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        assert state[name] == value, name
