"""No code asks for the name of a model class: a model is its file and a line in the table."""

from __future__ import annotations

import ast
from pathlib import Path

import cellvae
from cellvae.model.models import MODELS

PACKAGE = Path(cellvae.__file__).parent
OWN_FILES = {cls.__module__.rpartition(".")[2] for cls in MODELS.values()}


def names_in(node: ast.AST) -> set[str]:
    """Names of models among the string constants of an expression."""
    return {
        leaf.value
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Constant)
        and isinstance(leaf.value, str)
        and leaf.value in {*MODELS, "MULTIVI", "TOTALANVI"}
    }


def questions(tree: ast.AST) -> list[tuple[int, set[str]]]:
    """Lines that compare with, match or look up the name of a model."""
    found = []
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.match_case):
            parts = [node.pattern]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = [*node.args] if node.func.attr in ("get", "startswith", "endswith") else []
        names = set().union(*map(names_in, parts)) if parts else set()
        if names:
            found.append((getattr(node, "lineno", 0), names))
    return found


def test_no_code_asks_for_the_name_of_a_model_outside_its_file_and_the_table() -> None:
    table = {PACKAGE / "model" / "models.py", PACKAGE / "scvi" / "missing_models.py"}
    asked = {
        f"{path.relative_to(PACKAGE)}:{line}": names
        for path in PACKAGE.rglob("*.py")
        if path not in table and not (path.parent.name == "model" and path.stem in OWN_FILES)
        for line, names in questions(ast.parse(path.read_text()))
    }
    assert asked == {}


def test_a_question_is_found() -> None:
    code = (
        "if type(model).__name__ == 'SCVI': pass\n"
        "if name in ('SCVI', 'PEAKVI'): pass\n"
        "weights = {'SOLO': 1}\n"
        "weights['SOLO']\n"
        "weights.get('SCANVI')\n"
        "DEFAULT = 'SCVI'\n"
        "raise ValueError('Expected a model of SCVI.')\n"
    )
    assert [line for line, _ in questions(ast.parse(code))] == [1, 2, 3, 4, 5]
