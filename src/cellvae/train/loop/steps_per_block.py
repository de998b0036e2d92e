"""How many optimizer steps Lightning sees as one batch, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import lightning.pytorch as pl

from cellvae.train.loop.trainer import LIMIT
from cellvae.train.options.train_options import TrainOptions

MAX_STEPS_PER_BLOCK = 50
"""Steps of a block unless told otherwise: what is done between two blocks hardly counts then."""
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)
"""Hooks of callbacks that are there for single steps."""
BLOCK_SAFE_CALLBACKS = frozenset(
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
"""Arguments of Lightning's Trainer that do not watch steps."""
LIGHTNING_CALLBACKS = frozenset(
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
"""Callbacks of Lightning that do not count on its own way to make steps."""
SINGLE_PRECISION = (None, 32, "32", "32-true")


@dataclass(frozen=True, kw_only=True)
class StepsPerBlock:
    """How many steps a block has.

    Parameters
    ----------
    number
        Steps.
    reason
        Why so many, for people.
    """

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CaptureDecision:
    """Whether steps are recorded.

    Parameters
    ----------
    wanted
        Whether they are.
    reason
        Why, for people.
    """

    wanted: bool
    reason: str


def choose_steps(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    *,
    n_steps: int,
    can_be_cut: bool = True,
) -> StepsPerBlock:
    """Steps of a block: one where something watches single steps, many otherwise.

    Parameters
    ----------
    options
        What was asked for.
    callbacks
        Callbacks of the run.
    n_steps
        Optimizer steps of an epoch.
    can_be_cut
        Whether the cells of a run can be cut into blocks of several steps.
    """
    watching = per_step_watcher(options, callbacks) or (
        "" if can_be_cut else "batches are cut anew"
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
    """What watches single steps; empty if nothing does."""
    if options.log_steps:
        return "every step is logged"
    if options.accumulate:
        return "gradients of several batches are added up"
    if options.plateau is not None:
        return "the learning rate has a schedule"
    if options.devices not in ("auto", 1, "1", (0,), [0]):
        return f"devices={options.devices!r}"
    if options.loader.num_workers:
        return "cells are taken ahead"
    if not options.loader.shuffle:
        # Companions of steps then differ in number.
        return "cells are not shuffled"
    if os.environ.get(LIMIT) is not None:
        return f"the variable {LIMIT} is set"
    given = {
        word: value for word, value in options.trainer.items() if word not in BLOCK_SAFE_CALLBACKS
    }
    for word, value in given.items():
        if value is not None and value is not False:
            return f"{word} is given"
    if options.trainer.get("precision") not in SINGLE_PRECISION:
        return f"precision={options.trainer['precision']!r}"
    for callback in callbacks:
        hook = step_hook(callback)
        if hook:
            return f"{type(callback).__name__} has {hook}"
        if relies_on_lightning(callback):
            return f"{type(callback).__name__} is made for them"
    return ""


def relies_on_lightning(callback: pl.Callback) -> bool:
    """Whether a callback is one of Lightning's that may count on its own way to make steps."""
    bases = [b for b in type(callback).__mro__ if b.__module__.startswith("lightning.")]
    return any(base.__name__ not in LIGHTNING_CALLBACKS for base in bases)


def step_hook(callback: pl.Callback) -> str:
    """Name of a hook by which a callback watches single steps; empty if it has none.

    A class of ours that says `supports_blocks` gets by with blocks, but for hooks that others
    added.
    """
    supports_blocks = getattr(callback, "supports_blocks", False)
    for name in STEP_HOOKS:
        hook = getattr(callback, name)
        function = getattr(hook, "__func__", hook)
        ours = supports_blocks and getattr(function, "__module__", "").startswith("cellvae.")
        if function is not getattr(pl.Callback, name) and not ours:
            return name
    return ""
