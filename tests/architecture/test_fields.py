"""What differs between types of fields is a method of the field, so that a new one is one file."""

from __future__ import annotations

import ast
from pathlib import Path

import cellvae
from cellvae.data.setup.fields.field import Field, FieldRecord

SOURCE = Path(cellvae.__file__).parent


def subclass_names(cls: type) -> set[str]:
    """Names of all classes that derive from a class."""
    return {name for sub in cls.__subclasses__() for name in ({sub.__name__} | subclass_names(sub))}


def test_no_code_outside_the_fields_asks_for_their_type() -> None:
    types = {
        name
        for base in (Field, FieldRecord)
        for name in subclass_names(base)
        if name in {"Counts", "Category", "Labels", "Categories", "Numbers", "Proteins"}
        or name.endswith("Record")
    }
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "data" / "setup" / "fields"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asked: set[str] = set()
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.MatchClass):
                asked = {n.id for n in ast.walk(node.cls) if isinstance(n, ast.Name)}
            if asked & types and path.name != "registration.py":
                found.append(f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}")
    assert not found
