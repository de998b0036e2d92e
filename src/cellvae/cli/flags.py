"""Flags of `cellvae train`, made from the options of a model: names, types, defaults and help."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import operator
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cellvae.cli.docstrings import parameter_help
from cellvae.core.annotations import union_members
from cellvae.train.options.default_epochs import REFERENCE_N_CELLS, default_epochs

DATA, NETWORK, TRAINING, OPTIMIZER, STOPPING, OUTPUT = (
    "Data",
    "Network",
    "Training",
    "Optimizer",
    "Early stopping",
    "Output",
)
"""Panels of the help."""
PANELS = {
    "training": TRAINING,
    "optimizer": OPTIMIZER,
    "early stopping": STOPPING,
    "progress": OUTPUT,
}
PROGRAM_FLAGS = ("resume", "run_dir", "reset", "seed")
"""Words of `train` that the program sets by flags of its own, or by itself."""
UNTYPED = ("Custom",)
"""Choices that need a function beside them."""
SEQUENCE_TYPES = (list, tuple)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag.

    Parameters
    ----------
    name
        Keyword that it stands for.
    place
        Call that takes the keyword: set-up, model, `train`, or a dictionary of `train`.
    panel
        Part of the help that lists it.
    hint
        Annotation of its value.
    default
        Value where the flag is left out.
    help
        What it is.
    """

    name: str
    place: Literal["setup", "config", "train", "plan_kwargs", "datasplitter_kwargs"]
    panel: str
    hint: Any
    default: Any
    help: str

    @property
    def spelling(self) -> str:
        """Flag as it is typed."""
        return flag_of_option(self.name)

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: `--x` or `--no-x`."""
        return bool in union_members(self.hint)

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be given several times."""
        return any(
            typing.get_origin(member) in SEQUENCE_TYPES for member in union_members(self.hint)
        )

    @property
    def choices(self) -> list[str]:
        """Values that are named by its annotation."""
        literals = [hint for hint in union_members(self.hint) if typing.get_origin(hint) is Literal]
        named = [str(choice) for hint in literals for choice in typing.get_args(hint)]
        return [name for name in named if name not in UNTYPED]

    @property
    def metavar(self) -> str | None:
        """What stands for its value in the help; None where it takes none."""
        if self.is_switch:
            return None
        inner = list(inner_types(self.hint))
        if any(typing.get_origin(member) is Mapping for member in inner):
            return "JSON"
        if str in inner or not {int, float} & set(inner):
            return "TEXT"
        return "NUMBER" if float in inner else "INTEGER"

    def describe(self) -> str:
        """Help with choices and default, in one line."""
        text = self.help
        numeric = {int, float} & set(union_members(self.hint))
        if len(self.choices) > 1 and not numeric:
            text += f" One of: {', '.join(self.choices)}."
        if any(typing.get_origin(member) is Mapping for member in union_members(self.hint)):
            text += " As JSON."
        if self.is_repeatable:
            text += " May be repeated."
        if self.default not in (None, ()):
            shown = self.default
            if isinstance(shown, bool):
                shown = "yes" if shown else "no"
            text += f" (default: {shown})"
        return text

    def parse(self, given: Any) -> Any:
        """Value in the type that the annotation names, from a string or a list of strings.

        A text that fits nothing stays as it is: the options say what they expect.
        """
        if self.is_switch or given is None:
            return given
        if not self.is_repeatable:
            return value_from_text(given, self.hint)
        inner = functools.reduce(operator.or_, inner_types(self.hint))
        values = [value_from_text(text, inner) for text in given]
        scalars = [
            m
            for m in union_members(self.hint)
            if typing.get_origin(m) not in (*SEQUENCE_TYPES, None)
        ]
        plain = {str, int, float} & set(union_members(self.hint))
        return values[0] if len(values) == 1 and (scalars or plain) else values


def flag_of_option(option: str) -> str:
    """Flag of a keyword."""
    return f"--{option.replace('_', '-')}"


def inner_types(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation, where those of a list's or tuple's items stand for it."""
    found = []
    for member in union_members(hint):
        of_items = typing.get_origin(member) in SEQUENCE_TYPES
        found += (
            [each for each in typing.get_args(member) if each is not ...] if of_items else [member]
        )
    return tuple(found)


def value_from_text(text: str, hint: Any) -> Any:
    """Value in the first type of an annotation that a text can be read as, or the text itself."""
    candidates = union_members(hint)
    for member in candidates:
        if typing.get_origin(member) is Literal:
            for choice in typing.get_args(member):
                if text == str(choice):
                    return choice
    if str in candidates:
        return text
    for member in candidates:
        try:
            if member is type(None) and text == "None":
                return None
            if member in (int, float):
                return member(text)
            if typing.get_origin(member) is Mapping:
                return json.loads(text)
        except ValueError:
            continue
    return text


def is_typed(hint: Any) -> bool:
    """Whether a value of an annotation can be typed on a command line."""
    for member in union_members(hint):
        origin = typing.get_origin(member)
        if member in (bool, int, float, str) or origin in (Literal, *SEQUENCE_TYPES):
            return True
        if origin is Mapping and typing.get_args(member)[0] is str:
            return True
    return False


def flags_of(kind: Any) -> tuple[Flag, ...]:
    """Flags for all options of a model, in the order of the help.

    Parameters
    ----------
    kind
        Class of the model.
    """
    return (*setup_flags(kind), *config_flags(kind), *train_flags(kind))


def setup_flags(kind: Any) -> list[Flag]:
    """Flags for the words of `setup_anndata`."""
    described = parameter_help(kind.Keys)
    fields = {field.name: field for field in dataclasses.fields(kind.Keys)}
    flags = []
    for name in inspect.signature(kind.setup_anndata).parameters:
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


def config_flags(kind: Any) -> list[Flag]:
    """Flags for the options of a model."""
    hints = typing.get_type_hints(kind.Config)
    described = parameter_help(kind.Config)
    return [
        Flag(
            name=field.name,
            place="config",
            panel=NETWORK,
            hint=hints[field.name],
            default=field.default,
            help=described.get(field.name, ""),
        )
        for field in dataclasses.fields(kind.Config)
        if is_typed(hints[field.name])
    ]


def train_flags(kind: Any) -> list[Flag]:
    """Flags for the words of `train`, with the defaults that the model has for them."""
    from cellvae.train.options.option_table import train_option_table

    words = train_option_table(loss_weights(kind), learns_labels=uses_labels(kind))
    defaults = model_train_defaults(kind)
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


def loss_weights(kind: Any) -> Mapping[str, float]:
    """Weights of parts of a model's loss, with their defaults."""
    module = typing.get_type_hints(kind.build)["return"]
    weights: Mapping[str, float] = module.loss_weights
    return weights


def uses_labels(kind: Any) -> bool:
    """Whether a model learns from labels."""
    from cellvae.estimator.model import Model

    return kind.training_labels is not Model.training_labels


def model_train_defaults(kind: Any) -> dict[str, Any]:
    """Defaults of `train` that a model has for itself, by their words."""
    few, many = (train_defaults_for(kind, n_cells) for n_cells in (1, 50 * REFERENCE_N_CELLS))
    epochs = few["max_epochs"]
    if many["max_epochs"] < epochs:
        epochs = f"{epochs}, fewer above {REFERENCE_N_CELLS:,} cells"
    return {**few, "max_epochs": epochs}


def train_defaults_for(kind: Any, n_cells: int) -> dict[str, Any]:
    """Words of `train` that a model takes by default for a number of cells, in one dictionary."""
    model = kind.__new__(kind)
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


def parser_type(flag: Flag) -> Any:
    """Type for the parser of the command line: strings, which the options convert and check."""
    if flag.is_switch:
        return bool | None
    return list[str] | None if flag.is_repeatable else str | None
