"""One flag of `cellvae train`: its name, type, choices, help, and how its value is parsed."""

from __future__ import annotations

import functools
import json
import operator
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cellvae.core.annotations import union_members

DATA, NETWORK, TRAINING, OPTIMIZER, STOPPING, OUTPUT = (
    "Data",
    "Network",
    "Training",
    "Optimizer",
    "Early stopping",
    "Output",
)
"""Panels of the help."""
UNTYPED = ("Custom",)
"""Choices that need a Python function, which a command line cannot give."""
SEQUENCE_TYPES = (list, tuple)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of the command line.

    Parameters
    ----------
    name
        Name of the keyword argument.
    place
        Call that receives it: setup, model, calls of doublets, `train`, or a dictionary argument of
        `train`.
    panel
        Panel of the help.
    hint
        Type annotation of the value.
    default
        Value if the flag is omitted.
    help
        Description.
    """

    name: str
    place: Literal["setup", "config", "calls", "train", "plan_kwargs", "datasplitter_kwargs"]
    panel: str
    hint: Any
    default: Any
    help: str

    @property
    def spelling(self) -> str:
        """Flag as typed by the user."""
        return flag_of_option(self.name)

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: `--x` or `--no-x`."""
        return bool in union_members(self.hint)

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be repeated."""
        return any(
            typing.get_origin(member) in SEQUENCE_TYPES for member in union_members(self.hint)
        )

    @property
    def choices(self) -> list[str]:
        """Values that its annotation lists."""
        literals = [hint for hint in union_members(self.hint) if typing.get_origin(hint) is Literal]
        named = [str(choice) for hint in literals for choice in typing.get_args(hint)]
        return [name for name in named if name not in UNTYPED]

    @property
    def metavar(self) -> str | None:
        """Placeholder of its value in the help; None for a switch."""
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

    def parse(self, value: Any) -> Any:
        """Value in a type of the annotation, from a string or a list of strings.

        A string that fits no type is returned unchanged, and refused by the check of the options.
        """
        if self.is_switch or value is None:
            return value
        if not self.is_repeatable:
            return value_from_text(value, self.hint)
        inner = functools.reduce(operator.or_, inner_types(self.hint))
        values = [value_from_text(text, inner) for text in value]
        scalars = [
            m
            for m in union_members(self.hint)
            if typing.get_origin(m) not in (*SEQUENCE_TYPES, None)
        ]
        plain = {str, int, float} & set(union_members(self.hint))
        return values[0] if len(values) == 1 and (scalars or plain) else values


def flag_of_option(option: str) -> str:
    """Flag of a keyword argument."""
    return f"--{option.replace('_', '-')}"


def inner_types(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation, with lists and tuples replaced by their item types."""
    types = []
    for member in union_members(hint):
        is_sequence = typing.get_origin(member) in SEQUENCE_TYPES
        types += (
            [item for item in typing.get_args(member) if item is not ...]
            if is_sequence
            else [member]
        )
    return tuple(types)


def value_from_text(text: str, hint: Any) -> Any:
    """String parsed as the first type of an annotation that fits, or the string itself."""
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
    """Whether values of an annotation can be given on a command line."""
    for member in union_members(hint):
        origin = typing.get_origin(member)
        if member in (bool, int, float, str) or origin in (Literal, *SEQUENCE_TYPES):
            return True
        if origin is Mapping and typing.get_args(member)[0] is str:
            return True
    return False


def parser_type(flag: Flag) -> Any:
    """Type of a flag for the command-line parser: strings, which are converted later."""
    if flag.is_switch:
        return bool | None
    return list[str] | None if flag.is_repeatable else str | None
