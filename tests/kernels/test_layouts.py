"""One rule for the names of kernels, and one declaration of what a job has."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import cellvae.kernels
from cellvae.kernels.compiled import job_layouts
from cellvae.kernels.compiled.job_layouts import CountLogProbJob, field_positions
from cellvae.kernels.dispatch import Kernel

FOLDER = Path(cellvae.kernels.__file__).parent
KERNELS = get_args(Kernel)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_has_one_name_on_both_sides(name: str) -> None:
    torch_side = import_module(getattr(cellvae.kernels, name).__module__)
    compiled_side = import_module(f"cellvae.kernels.compiled.{name}_numba")
    assert torch_side.__name__.rpartition(".")[2] == name
    assert getattr(compiled_side, f"{name}_kernel").address
    assert isinstance(getattr(job_layouts, name.upper()), tuple)
    job = "".join(part.title() for part in name.split("_")) + "Job"
    assert hasattr(torch_side, job)


def test_no_kernel_is_left_out() -> None:
    kernels = {
        path.stem.removesuffix("_numba")
        for path in (FOLDER / "compiled").glob("*_numba.py")
        if "@compile_kernel" in path.read_text()
    }
    assert kernels == set(KERNELS)


def test_positions_are_those_of_the_fields() -> None:
    positions = field_positions(CountLogProbJob)
    assert positions == tuple(range(len(CountLogProbJob._fields)))
    assert positions.next_cell == 0
    assert positions.grad_gene == len(positions) - 1


def test_compiled_code_depends_on_nothing_that_the_key_of_the_cache_leaves_out() -> None:
    imported = {
        node.module
        for path in (FOLDER / "compiled").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("cellvae")
    }
    # What compiles it is not compiled itself.
    imported.remove("cellvae.kernels.kernel_cache")
    assert all(name.startswith("cellvae.kernels.compiled.") for name in imported)


def test_both_sides_read_jobs_by_name() -> None:
    # fields[3] would be a position that nobody declared.
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                assert node.value.id != "fields" or isinstance(node.slice, ast.Attribute), path
