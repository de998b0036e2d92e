"""Flags of `cellvae train` for the options of a model, with their defaults and help."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from cellvae.cli.docstrings import parameter_help
from cellvae.cli.flags import DATA, NETWORK, OPTIMIZER, OUTPUT, STOPPING, TRAINING, Flag, is_typed
from cellvae.train.options.default_epochs import REFERENCE_N_CELLS, default_epochs

PANELS = {
    "training": TRAINING,
    "optimizer": OPTIMIZER,
    "early stopping": STOPPING,
    "progress": OUTPUT,
}
PROGRAM_FLAGS = ("resume", "run_dir", "reset", "seed")
"""Words of `train` that the program sets by flags of its own, or by itself."""


def flags_of(cls: Any) -> tuple[Flag, ...]:
    """Flags for all options of a model, in the order of the help.

    Parameters
    ----------
    cls
        Class of the model.
    """
    return (*setup_flags(cls), *config_flags(cls), *train_flags(cls))


def setup_flags(cls: Any) -> list[Flag]:
    """Flags for the words of `setup_anndata`."""
    described = parameter_help(cls.Keys)
    fields = {field.name: field for field in dataclasses.fields(cls.Keys)}
    flags = []
    for name in inspect.signature(cls.setup_anndata).parameters:
        if name == "adata":
            continue
        many = isinstance(fields[name].default, tuple)
        flags.append(
            Flag(
                name=name,
                place="setup",
                panel=DATA,
                hint=tuple[str, ...] if many else str,
                default=None,
                help=described.get(name, ""),
            )
        )
    return flags


def config_flags(cls: Any) -> list[Flag]:
    """Flags for the options of a model."""
    hints = typing.get_type_hints(cls.Config)
    described = parameter_help(cls.Config)
    return [
        Flag(
            name=field.name,
            place="config",
            panel=NETWORK,
            hint=hints[field.name],
            default=field.default,
            help=described.get(field.name, ""),
        )
        for field in dataclasses.fields(cls.Config)
        if is_typed(hints[field.name])
    ]


def train_flags(cls: Any) -> list[Flag]:
    """Flags for the words of `train`, with the defaults that the model has for them."""
    from cellvae.train.options.option_table import train_option_table

    words = train_option_table(loss_weights(cls), learns_labels=uses_labels(cls))
    defaults = model_train_defaults(cls)
    flags = []
    for word in words:
        hint: Any = word.kind
        text = word.help
        if word.options is not None:
            hint = typing.get_type_hints(word.options)[word.field]
            text = parameter_help(word.options).get(word.field, "")
        if word.name in PROGRAM_FLAGS or not is_typed(hint):
            continue
        flags.append(
            Flag(
                name=word.name,
                place=word.place,
                panel=PANELS[word.topic],
                hint=hint,
                default=defaults.get(word.name, word.default),
                help=text,
            )
        )
    return sorted(flags, key=lambda flag: list(PANELS.values()).index(flag.panel))


def loss_weights(cls: Any) -> Mapping[str, float]:
    """Weights of parts of a model's loss, with their defaults."""
    module = typing.get_type_hints(cls.build)["return"]
    weights: Mapping[str, float] = module.loss_weights
    return weights


def uses_labels(cls: Any) -> bool:
    """Whether a model learns from labels."""
    from cellvae.estimator.model import Model

    return cls.training_labels is not Model.training_labels


def model_train_defaults(cls: Any) -> dict[str, Any]:
    """Defaults of `train` that a model has for itself, by their words."""
    few, many = (train_defaults_for(cls, n_cells) for n_cells in (1, 50 * REFERENCE_N_CELLS))
    epochs = few["max_epochs"]
    if many["max_epochs"] < epochs:
        epochs = f"{epochs}, fewer above {REFERENCE_N_CELLS:,} cells"
    return {**few, "max_epochs": epochs}


def train_defaults_for(cls: Any, n_cells: int) -> dict[str, Any]:
    """Words of `train` that a model takes by default for a number of cells, in one dictionary."""
    model = cls.__new__(cls)
    model.rows = range(n_cells)
    words = {"max_epochs": default_epochs(n_cells), **model.train_defaults({})}
    return {**words, **words.pop("plan_kwargs", {})}


def group_by_call(flags: tuple[Flag, ...], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Keywords by the call that takes them, with the values that were meant.

    Parameters
    ----------
    flags
        Flags of the model.
    given
        What was typed, None where nothing was.
    """
    words: dict[str, dict[str, Any]] = {"setup": {}, "config": {}, "train": {}}
    inner: dict[str, dict[str, Any]] = {}
    for flag in flags:
        if given.get(flag.name) is None or given[flag.name] == []:
            continue
        target = words[flag.place] if flag.place in words else inner.setdefault(flag.place, {})
        target[flag.name] = flag.parse(given[flag.name])
    words["train"] |= inner
    return words
