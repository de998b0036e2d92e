"""Flags of `cellvae train` for the options of a model, with their defaults and help."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from cellvae.cli.doublets import EPOCHS_OPTION, RATE_OPTION, class_of_cells
from cellvae.cli.flags import DATA, NETWORK, OPTIMIZER, OUTPUT, STOPPING, TRAINING, Flag, is_typed
from cellvae.core.docstrings import parameter_help, parameter_section
from cellvae.train.options.default_epochs import REFERENCE_N_CELLS, default_epochs

PANELS = {
    "training": TRAINING,
    "optimizer": OPTIMIZER,
    "early stopping": STOPPING,
    "progress": OUTPUT,
}
PROGRAM_FLAGS = ("resume", "run_dir", "reset", "seed")
"""Keyword arguments of `train` that the program sets itself or by flags of its own."""


def flags_of(cls: Any) -> tuple[Flag, ...]:
    """Flags for all options of a model, in the order of the help.

    Parameters
    ----------
    cls
        Class of the model.
    """
    return (*setup_flags(cls), *config_flags(cls), *call_flags(cls), *train_flags(cls))


def setup_flags(cls: Any) -> list[Flag]:
    """Flags for the keyword arguments of `setup_anndata`, and those of `setup_mudata`, if any."""
    cls = class_of_cells(cls)
    mudata = getattr(cls, "setup_mudata", None)
    methods = [cls.setup_anndata, *([] if mudata is None else [mudata])]
    names = {name: method for method in methods for name in inspect.signature(method).parameters}
    descriptions = {
        **(parameter_section(mudata.__doc__ or "") if mudata is not None else {}),
        **parameter_help(cls.Keys),
    }
    key_types = typing.get_type_hints(cls.Keys)
    flags = []
    for name in names:
        if name in ("adata", "mdata"):
            continue
        several = typing.get_origin(key_types.get(name)) is tuple
        flags.append(
            Flag(
                name=name,
                place="setup",
                panel=DATA,
                hint=tuple[str, ...] if several else setup_hint(name),
                default=None,
                help=descriptions.get(name, ""),
            )
        )
    return flags


def setup_hint(name: str) -> Any:
    """Type of a keyword argument of a set-up, by its name."""
    if name == "modalities":
        return Mapping[str, str]
    return tuple[str, ...] if name.endswith("_keys") else str


def call_flags(cls: Any) -> list[Flag]:
    """Flags for the calls of a model that calls doublets."""
    if getattr(cls, "call_doublets", None) is None:
        return []
    return [
        Flag(
            name=RATE_OPTION,
            place="calls",
            panel=OUTPUT,
            hint=float | Mapping[str, float],
            default=None,
            help=(
                "Fraction of doublets among the cells, as many as are called: one number, or one "
                "for each batch. Estimated if it is left out."
            ),
        ),
        Flag(
            name=EPOCHS_OPTION,
            place="calls",
            panel=TRAINING,
            hint=int,
            default=None,
            help=(
                "Epochs of the SCVI that is trained first, whose latent is read. (default: 400, "
                f"fewer from {REFERENCE_N_CELLS:,} cells)"
            ),
        ),
    ]


def config_flags(cls: Any) -> list[Flag]:
    """Flags for the options of a model."""
    hints = typing.get_type_hints(cls.Config)
    descriptions = parameter_help(cls.Config)
    return [
        Flag(
            name=field.name,
            place="config",
            panel=NETWORK,
            hint=hints[field.name],
            default=field.default,
            help=descriptions.get(field.name, ""),
        )
        for field in dataclasses.fields(cls.Config)
        if is_typed(hints[field.name])
    ]


def train_flags(cls: Any) -> list[Flag]:
    """Flags for the keyword arguments of `train`, with the defaults of the model."""
    from cellvae.train.options.option_table import train_option_table

    options = train_option_table(loss_weights(cls), learns_labels=uses_labels(cls))
    defaults = model_train_defaults(cls)
    flags = []
    for option in options:
        hint: Any = option.kind
        text = option.help
        if option.options is not None:
            hint = typing.get_type_hints(option.options)[option.field]
            text = parameter_help(option.options).get(option.field, "")
        if option.name in PROGRAM_FLAGS or not is_typed(hint):
            continue
        flags.append(
            Flag(
                name=option.name,
                place=option.place,
                panel=PANELS[option.topic],
                hint=hint,
                default=defaults.get(option.name, option.default),
                help=text,
            )
        )
    return sorted(flags, key=lambda flag: list(PANELS.values()).index(flag.panel))


def loss_weights(cls: Any) -> Mapping[str, float]:
    """Default weights of the terms of a model's loss."""
    module = typing.get_type_hints(cls.build)["return"]
    weights: Mapping[str, float] = module.loss_weights
    return weights


def uses_labels(cls: Any) -> bool:
    """Whether a model is trained with labels."""
    from cellvae.estimator.model import Model

    return cls.training_labels is not Model.training_labels


def model_train_defaults(cls: Any) -> dict[str, Any]:
    """Defaults of `train` that depend on the model, by keyword."""
    few, many = (train_defaults_for(cls, n_cells) for n_cells in (1, 50 * REFERENCE_N_CELLS))
    epochs = few["max_epochs"]
    if many["max_epochs"] < epochs:
        epochs = f"{epochs}, fewer above {REFERENCE_N_CELLS:,} cells"
    return {**few, "max_epochs": epochs}


def train_defaults_for(cls: Any, n_cells: int) -> dict[str, Any]:
    """Default keyword arguments of `train` for a model and a number of cells."""
    model = cls.__new__(cls)
    model.rows = range(n_cells)
    kwargs = {"max_epochs": default_epochs(n_cells), **model.train_defaults({})}
    return {**kwargs, **kwargs.pop("plan_kwargs", {})}


def group_by_call(flags: tuple[Flag, ...], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group parsed keyword arguments by the call that receives them.

    Parameters
    ----------
    flags
        Flags of the model.
    given
        Values from the command line; None for an omitted flag.
    """
    kwargs: dict[str, dict[str, Any]] = {"setup": {}, "config": {}, "calls": {}, "train": {}}
    nested: dict[str, dict[str, Any]] = {}
    for flag in flags:
        if given.get(flag.name) is None or given[flag.name] == []:
            continue
        target = kwargs[flag.place] if flag.place in kwargs else nested.setdefault(flag.place, {})
        target[flag.name] = flag.parse(given[flag.name])
    kwargs["train"] |= nested
    return kwargs
