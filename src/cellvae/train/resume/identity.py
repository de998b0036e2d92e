"""What a resumed run must have in common with the interrupted one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cellvae.errors import ResumeError
from cellvae.train.options.train_options import TrainOptions
from cellvae.train.records.jsonable import describe_object, jsonable


def resume_identity(options: TrainOptions, *, adversarial: bool = False) -> dict[str, Any]:
    """Options that must not change when a run is resumed, as plain values.

    Parameters
    ----------
    options
        Options of the run.
    adversarial
        Whether the run has an adversarial classifier.
    """
    loader = dataclasses.asdict(options.loader)
    # Prefetched blocks are the same blocks.
    loader.pop("num_workers")
    identity = {
        "optimizer": plain_options(dataclasses.asdict(options.optimizer)),
        "loss_weights": dict(options.loss_weights),
        "loader": plain_options(loader),
        "kl_warmup": plain_options(dataclasses.asdict(options.warmup)),
        "plateau": plain_options(dataclasses.asdict(options.plateau)) if options.plateau else None,
        "precision": str(options.trainer.get("precision", "32-true")),
    }
    if adversarial:
        identity["adversarial_classifier"] = {"scale": options.adversarial.scale}
    return identity


def plain_options(options: Any) -> Any:
    """Options as plain values; functions, classes and objects by name."""
    return jsonable(options, describe_object)


def differences(saved: Any, now: Any, where: str = "") -> list[str]:
    """Differences between two nested plain values, one line each."""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        lines = []
        for key in dict.fromkeys([*saved, *now]):
            at = f"{where}.{key}" if where else str(key)
            if key not in saved:
                lines.append(f"{at}: not in the saved run, {abbreviate(now[key])} now")
            elif key not in now:
                lines.append(f"{at}: {abbreviate(saved[key])} in the saved run, not there now")
            else:
                lines += differences(saved[key], now[key], at)
        return lines
    if is_list_of_strings(saved) and is_list_of_strings(now) and list(saved) != list(now):
        return [f"{where}: {describe_name_differences(list(saved), list(now))}"]
    if isinstance(saved, list | tuple) and isinstance(now, list | tuple):
        same = list(saved) == list(now)
    else:
        same = saved == now
    return [] if same else [f"{where}: {abbreviate(saved)} in the saved run, {abbreviate(now)} now"]


def is_list_of_strings(value: Any) -> bool:
    """Whether a value is a list of strings."""
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


def describe_name_differences(saved: Sequence[str], now: Sequence[str]) -> str:
    """Describe how two lists of names differ."""
    missing = [name for name in saved if name not in set(now)]
    added = [name for name in now if name not in set(saved)]
    if not missing and not added:
        return "the same names in another order"
    parts = [f"{len(saved):,} in the saved run, {len(now):,} now"]
    parts += [f"missing {', '.join(map(repr, missing[:5]))}"] if missing else []
    parts += [f"new {', '.join(map(repr, added[:5]))}"] if added else []
    return "; ".join(parts)


def abbreviate(value: Any) -> str:
    """Text of a value for a message, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_identity(
    saved: Mapping[str, Any], now: Mapping[str, Any], differing: Sequence[str] = ()
) -> None:
    """Refuse to resume a run with other cells, genes, categories or hyperparameters.

    Parameters
    ----------
    saved, now
        Identity of the interrupted run, and of this one.
    differing
        A line for each column of the cells whose values differ.

    Raises
    ------
    ResumeError
        If there is a difference, with a line for each.
    """
    found = [*differences(saved, now), *differing]
    if found:
        lines = "\n  ".join(found[:20])
        more = f"\n  and {len(found) - 20:,} more" if len(found) > 20 else ""
        raise ResumeError(
            "Expected the model, data and hyperparameters of the run that is to be resumed; these "
            f"differ:\n  {lines}{more}\nGive what the run had, or train from scratch: "
            "resume=None, or another run_dir."
        )
