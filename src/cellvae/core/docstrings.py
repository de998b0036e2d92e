"""Descriptions of parameters, parsed from numpy docstrings."""

from __future__ import annotations

import inspect
import re

HEADING = re.compile(r"^Parameters\n-+\n", re.MULTILINE)
NEXT_HEADING = re.compile(r"^\S.*\n-{3,}$", re.MULTILINE)


def parameter_help(cls: type) -> dict[str, str]:
    """Description of each parameter of a class; its own docstring overrides those of its bases.

    Parameters
    ----------
    cls
        Class whose docstring has a section "Parameters".

    Returns
    -------
    Descriptions by name, in one line each, without reStructuredText markup.
    """
    return {name: strip_markup(text) for name, text in parameter_descriptions(cls).items()}


def parameter_descriptions(cls: type) -> dict[str, str]:
    """Description of each parameter as in :func:`parameter_help`, with its markup."""
    descriptions: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        descriptions |= marked_section(base.__dict__.get("__doc__") or "")
    return descriptions


def parameter_section(doc: str) -> dict[str, str]:
    """Description of each parameter in the section "Parameters" of a docstring."""
    return {name: strip_markup(text) for name, text in marked_section(doc).items()}


def marked_section(doc: str) -> dict[str, str]:
    """Description of each parameter in the section "Parameters", with its markup."""
    text = inspect.cleandoc(doc)
    start = HEADING.search(text)
    if start is None:
        return {}
    section = text[start.end() :]
    following = NEXT_HEADING.search(section)
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in section[: following.start() if following else None].splitlines():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(":")[0].split(",")]
            found |= {name: [] for name in names}
        else:
            for name in names:
                found[name].append(line.strip())
    descriptions = {name: " ".join(filter(None, lines)) for name, lines in found.items()}
    # "As in CountKeys." refers to the description in the base class.
    return {name: text for name, text in descriptions.items() if not text.startswith("As in ")}


def strip_markup(text: str) -> str:
    """Text without backquotes, and with names in place of cross-references."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("`", "")
