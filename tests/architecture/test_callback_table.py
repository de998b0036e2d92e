"""The table of callbacks names every feature once, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Rows of the specification: how many of each letter.
ROWS = {"S": 22, "P": 17, "F": 8, "L": 21, "C": 11, "W": 16, "X": 16, "G": 23}


def table() -> dict[str, str]:
    lines = (ROOT / "docs" / "callbacks.md").read_text().splitlines()
    found = [re.match(r"\| ([A-Z]\d+) \|.*\| ([^|]*) \|$", line) for line in lines]
    rows = [match.groups() for match in found if match]
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


def functions() -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        names.setdefault(path.name, set()).update(found)
    return names


def test_every_row_is_there() -> None:
    wanted = [f"{letter}{i + 1}" for letter, n in ROWS.items() for i in range(n)]
    assert sorted(table()) == sorted(wanted)


def test_every_test_that_a_row_names_exists() -> None:
    known = functions()
    missing = [
        f"{row}: {file}: {name}"
        for row, cell in table().items()
        for file, name in re.findall(r"`(test_\w+\.py): ([\w*]+)`", cell)
        if name != "*" and f"test_{name}" not in known.get(file, set()) or not known.get(file)
    ]
    assert missing == []
    assert [row for row, cell in table().items() if "test_" not in cell] == []
