"""Flags of `cellvae train`, made from the options of a model: names, types, defaults and help."""

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


def parser_type(flag: Flag) -> Any:
    """Type for the parser of the command line: strings, which the options convert and check."""
    if flag.is_switch:
        return bool | None
    return list[str] | None if flag.is_repeatable else str | None
