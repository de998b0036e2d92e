"""Number of optimizer steps in a block, which Lightning sees as one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import lightning.pytorch as pl

from cellvae.train.loop.trainer import LIMIT_VARIABLE
from cellvae.train.options.train_options import TrainOptions

MAX_STEPS_PER_BLOCK = 50
"""Steps of a block by default; the overhead of a block is then negligible."""
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)
"""Hooks of Lightning that run at every step."""
BLOCK_SAFE_TRAINER_KWARGS = frozenset(
    (
        "barebones",
        "benchmark",
        "default_root_dir",
        "deterministic",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "inference_mode",
        "limit_val_batches",
        "log_every_n_steps",
        "num_sanity_val_steps",
        "precision",
    )
)
"""Arguments of Lightning's Trainer that do not depend on single steps."""
BLOCK_SAFE_CALLBACKS = frozenset(
    (
        "Callback",
        "Checkpoint",
        "EarlyStopping",
        "LambdaCallback",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "ProgressBar",
        "RichModelSummary",
    )
)
"""Classes of Lightning's callbacks that do not depend on single steps."""
SINGLE_PRECISION = (None, 32, "32", "32-true")


@dataclass(frozen=True, kw_only=True)
class StepsPerBlock:
    """Number of optimizer steps in a block.

    Parameters
    ----------
    number
        Optimizer steps.
    reason
        Why so many, as a sentence.
    """

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CaptureDecision:
    """Whether steps are captured in a CUDA graph.

    Parameters
    ----------
    wanted
        Whether they are.
    reason
        Why, as a sentence.
    """

    wanted: bool
    reason: str


def choose_steps(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    *,
    n_steps: int,
    resizable: bool = False,
) -> StepsPerBlock:
    """Choose the steps of a block: one if something depends on single steps, many otherwise.

    Parameters
    ----------
    options
        Options of the run.
    callbacks
        Callbacks of the run.
    n_steps
        Optimizer steps of an epoch.
    resizable
        Whether a search changes the batch size during the run.
    """
    watching = per_step_watcher(options, callbacks) or (
        "the batch size is searched" if resizable else ""
    )
    if watching:
        return StepsPerBlock(number=1, reason=f"single steps: {watching}")
    if options.steps_per_block != "auto":
        number = min(options.steps_per_block, n_steps)
        return StepsPerBlock(number=number, reason=f"steps_per_block={options.steps_per_block}")
    return StepsPerBlock(
        number=min(MAX_STEPS_PER_BLOCK, n_steps), reason="nothing watches single steps"
    )


def per_step_watcher(options: TrainOptions, callbacks: Sequence[pl.Callback]) -> str:
    """What depends on single steps; empty if nothing does."""
    if options.log_steps:
        return "every step is logged"
    if options.accumulate:
        return "gradients of several batches are accumulated"
    if options.devices not in ("auto", 1, "1", (0,), [0]):
        return f"devices={options.devices!r}"
    if options.num_nodes > 1:
        return f"num_nodes={options.num_nodes}"
    if options.loader.num_workers:
        return "batches are prefetched"
    if not options.loader.shuffle:
        # The number of labelled cells then differs from step to step.
        return "cells are not shuffled"
    if os.environ.get(LIMIT_VARIABLE) is not None:
        return f"the variable {LIMIT_VARIABLE} is set"
    unsafe = {
        name: value
        for name, value in options.trainer.items()
        if name not in BLOCK_SAFE_TRAINER_KWARGS
    }
    for name, value in unsafe.items():
        if value is not None and value is not False:
            return f"{name} is given"
    if options.trainer.get("precision") not in SINGLE_PRECISION:
        return f"precision={options.trainer['precision']!r}"
    for callback in callbacks:
        hook = overridden_step_hook(callback)
        if hook:
            return f"{type(callback).__name__} has {hook}"
        if relies_on_lightning(callback):
            return f"{type(callback).__name__} depends on them"
    return ""


def relies_on_lightning(callback: pl.Callback) -> bool:
    """Whether a callback is one of Lightning's that may depend on single steps."""
    bases = [b for b in type(callback).__mro__ if b.__module__.startswith("lightning.")]
    return any(base.__name__ not in BLOCK_SAFE_CALLBACKS for base in bases)


def overridden_step_hook(callback: pl.Callback) -> str:
    """Name of a step hook of Lightning that a callback overrides; empty if there is none.

    Hooks of a class of ours with `supports_blocks` do not count, unless a subclass of the user
    overrides them.
    """
    supports_blocks = getattr(callback, "supports_blocks", False)
    for name in STEP_HOOKS:
        hook = getattr(callback, name)
        function = getattr(hook, "__func__", hook)
        ours = supports_blocks and getattr(function, "__module__", "").startswith("cellvae.")
        if function is not getattr(pl.Callback, name) and not ours:
            return name
    return ""
