"""Arguments of `train` that are those of Lightning's trainer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellvae.core.options import check_value
from cellvae.errors import InvalidOptionError
from cellvae.train.options.kwarg_names import PROGRESS_KWARGS, RUN_KWARGS, UNSUPPORTED_PRECISION


def with_resume(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments with `resume` in place of Lightning's `ckpt_path`.

    Raises
    ------
    InvalidOptionError
        If both are given, or `ckpt_path` is one of Lightning's names without a state here.
    """
    kwargs = dict(given)
    path = kwargs.pop("ckpt_path", None)
    if path is None:
        return kwargs
    if kwargs.get("resume"):
        raise InvalidOptionError("Expected resume or ckpt_path, which mean the same; got both.")
    if not isinstance(path, str | Path) or path in ("best", "hpc", "registry"):
        raise InvalidOptionError(
            f"Expected ckpt_path to be the state of a run, a folder with one, or 'last'; got "
            f"{path!r}. States are in run_dir/state; 'last' is the newest of them, if there is one."
        )
    return kwargs | {"resume": "auto" if path == "last" else path}


def parse_trainer(kwargs: Mapping[str, Any], trainer_names: frozenset[str]) -> dict[str, Any]:
    """Arguments that Lightning's trainer gets unchanged.

    Raises
    ------
    InvalidOptionError
        If the precision is too low for weights and counts, or `accumulate_grad_batches` is not a
        number of batches.
    """
    if kwargs.get("precision") in UNSUPPORTED_PRECISION:
        raise InvalidOptionError(
            "Expected a precision that keeps weights and counts in single precision at least; got "
            f"{kwargs['precision']!r}: sums of counts have more digits than it holds. Use "
            "'bf16-mixed' or '16-mixed', which compute in half precision what allows it."
        )
    ours = {*RUN_KWARGS, *PROGRESS_KWARGS, "enable_checkpointing", "callbacks"}
    arguments = {k: v for k, v in kwargs.items() if k in trainer_names and k not in ours}
    if arguments.get("accumulate_grad_batches") is not None:
        name, value = "accumulate_grad_batches", arguments["accumulate_grad_batches"]
        if isinstance(value, Mapping):
            raise InvalidOptionError(
                f"Expected {name} to be a whole number; got {value!r}. Numbers by epoch are given "
                "with accumulate={epoch: batches}."
            )
        arguments[name] = check_value(name, value, int, {"at_least": 1})
    if kwargs.get("log_save_dir") is not None:
        arguments.setdefault("default_root_dir", kwargs["log_save_dir"])
    return arguments


def lightning_trainer_kwargs() -> frozenset[str]:
    """Names of the arguments of Lightning's trainer."""
    import lightning.pytorch as pl

    return frozenset(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
