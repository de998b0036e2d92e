"""A model is its file, a line in the table and a contract case: no other code names its class."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import cellvae
from cellvae.model.models import MODELS

PACKAGE = Path(cellvae.__file__).parent
SHIPPED = {name for name, cls in MODELS.items() if cls.__module__.startswith("cellvae.model.")}
OWN_FILES = {MODELS[name].__module__.rpartition(".")[2] for name in SHIPPED}
LISTS = {"model/models.py", "model/__init__.py", "external.py"}
"""The table of the models, and the namespaces of scvi-tools that give them to users."""
DEFAULT = {"cli/job.py": {"SCVI"}}
"""The model that the command line trains where none is named."""
MOST_LINES = {"linear_scvi": 89, "poissonvi": 109, "scanvi": 379}
"""Lines of models that are another one with a part exchanged."""


def names_in(node: ast.AST) -> set[str]:
    """Names of models among the string constants of an expression."""
    return {
        leaf.value
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and leaf.value in MODELS
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


def named_models(tree: ast.AST) -> set[str]:
    """Models that code names: as a class, an attribute, an import or a string."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found & SHIPPED


def test_no_room_names_the_class_of_a_model() -> None:
    # isinstance(), issubclass(), annotations and imports are names too.
    named = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if not (path.parent.name == "model" and path.stem in OWN_FILES)
        and (names := named_models(ast.parse(path.read_text())))
    }
    assert {path: names for path, names in named.items() if path not in LISTS} == DEFAULT
    assert named_models(ast.parse("isinstance(model, SCVI) or kind == 'SCANVI'")) == {
        "SCVI",
        "SCANVI",
    }


def test_a_model_names_only_those_that_it_is_made_of() -> None:
    others = {
        name: named_models(ast.parse(Path(str(inspect.getsourcefile(MODELS[name]))).read_text()))
        - {name}
        for name in SHIPPED
    }
    assert {name: found for name, found in others.items() if found} == {
        "SCANVI": {"SCVI"},
        "SOLO": {"LinearSCVI", "SCANVI", "SCVI"},
        "TOTALANVI": {"TOTALVI"},
    }


def test_a_shipped_model_is_its_file_a_line_of_the_table_and_a_contract_case() -> None:
    files = [MODELS[name].__module__ for name in sorted(SHIPPED)]
    assert len({*files}) == len(files)
    assert {*OWN_FILES} == {path.stem for path in (PACKAGE / "model").glob("*.py")} - {
        "__init__",
        "models",
        "count_model",
    }
    lines = (PACKAGE / "model" / "models.py").read_text().splitlines()
    cases = (Path(__file__).parents[1] / "contract" / "conftest.py").read_text()
    for name in SHIPPED:
        assert lines.count(f'    "{name}": {name},') == 1
        assert cases.count(f'name="{name}"') == 1


@pytest.mark.parametrize("stem", MOST_LINES)
def test_a_model_that_exchanges_a_part_of_another_is_short(stem: str) -> None:
    lines = (PACKAGE / "model" / f"{stem}.py").read_text().splitlines()
    assert len(lines) <= MOST_LINES[stem]
