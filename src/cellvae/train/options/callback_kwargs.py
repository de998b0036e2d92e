"""The argument `callbacks` of `train`: callbacks, and default callbacks to leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellvae.errors import InvalidOptionError, did_you_mean

# Default callbacks of a run, by the names under which `callbacks={name: None}` disables them.
DEFAULT_CALLBACK_NAMES = (
    "nan_guard",
    "progress",
    "learning_rate",
    "ema",
    "training_checkpoint",
    "run_logger",
)
BLOCK_HOOKS = ("on_step_start", "on_step_end")
"""Hooks that run at every step of a block; a callback has both or neither."""


def callbacks_from_mapping(callbacks: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Callbacks, and names of default callbacks that a dictionary sets to None or False.

    Raises
    ------
    InvalidOptionError
        If a name is not that of a default callback, or a value is no callback.
    """
    if not isinstance(callbacks, Mapping):
        return as_callbacks(callbacks), ()
    without = tuple(name for name, c in callbacks.items() if c is None or c is False)
    for name in without:
        if name not in DEFAULT_CALLBACK_NAMES:
            raise InvalidOptionError(
                f"Expected the name of a default callback to leave out; got '{name}'."
                f"{did_you_mean(name, DEFAULT_CALLBACK_NAMES)} They are: "
                f"{', '.join(DEFAULT_CALLBACK_NAMES)}."
            )
    return as_callbacks([c for name, c in callbacks.items() if name not in without]), without


def as_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """Callbacks as a tuple of our own, from one, a sequence, or none.

    Raises
    ------
    InvalidOptionError
        If one of them is no callback, or has one of two hooks that belong together.
    """
    import lightning.pytorch as pl

    if callbacks is None:
        return ()
    found = tuple(callbacks) if isinstance(callbacks, list | tuple) else (callbacks,)
    for callback in found:
        if not isinstance(callback, pl.Callback):
            made = f" Did you mean {callback.__name__}()?" if isinstance(callback, type) else ""
            raise InvalidOptionError(
                f"Expected callbacks to be Lightning callbacks; got {callback!r}.{made}"
            )
        defined = [name for name in BLOCK_HOOKS if hasattr(callback, name)]
        if len(defined) == 1:
            raise InvalidOptionError(
                f"Expected a callback to have both on_step_start(step) and on_step_end(), or "
                f"neither; {type(callback).__name__} has {defined[0]} alone. The other one may do "
                "nothing."
            )
    return found
