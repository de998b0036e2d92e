"""Every public namespace lists what users may use, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import cellvae

NAMESPACES = [
    "cellvae",
    *(
        f"cellvae.{name}"
        for name in cellvae.__all__
        if isinstance(getattr(cellvae, name), ModuleType)
    ),
    *("cellvae.kernels", "cellvae.report", "cellvae.train.callbacks"),
]
SUBMODULES = {"cellvae"}
"""Namespaces whose public names are modules too."""


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_lists_public_names_and_nothing_else(namespace: str) -> None:
    module = importlib.import_module(namespace)
    listed = dir(module)
    assert listed == sorted(set(listed)) and set(module.__all__) <= {*listed}
    for name in listed:
        value = getattr(module, name)
        assert name == "__version__" or not name.startswith("_"), name
        assert namespace in SUBMODULES or not isinstance(value, ModuleType), name


def test_errors_lists_every_exception() -> None:
    errors = importlib.import_module("cellvae.errors")
    raised = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert {*dir(errors)} == raised


def test_listing_names_loads_nothing_heavy() -> None:
    heavy = "{'anndata', 'lightning', 'matplotlib', 'pyro', 'scanpy'}"
    code = f"import sys, cellvae; dir(cellvae); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_misspelt_name_is_an_attribute_error(namespace: str) -> None:
    module = importlib.import_module(namespace)
    with pytest.raises(AttributeError, match="'no_such_name'"):
        module.no_such_name  # noqa: B018
