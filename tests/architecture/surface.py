"""Every public name of the package on a line of its own; `make public-names` keeps the output."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

PACKAGE = "cellvae"


def public_members(owner: type) -> Iterator[str]:
    """Attributes that a class has from the package itself, its fields among them."""
    for cls in owner.__mro__:
        if cls.__module__.partition(".")[0] != PACKAGE:
            continue
        yield from (name for name in inspect.get_annotations(cls) if not name.startswith("_"))
        yield from (name for name in vars(cls) if not name.startswith("_"))


def public_names(module: ModuleType) -> Iterator[str]:
    """Names that a module offers: those of `__all__`, or those that it defines."""
    listed = getattr(module, "__all__", None)
    for name in vars(module) if listed is None else listed:
        value = getattr(module, name)
        defined_here = getattr(value, "__module__", None) == module.__name__
        if listed is None and (name.startswith("_") or not defined_here):
            continue
        yield name
        if inspect.isclass(value):
            yield from (f"{name}.{member}" for member in public_members(value))


def surface() -> list[str]:
    """Names of the root package and of the modules and folders right below it."""
    root = importlib.import_module(PACKAGE)
    below = [f"{PACKAGE}.{found.name}" for found in pkgutil.iter_modules(root.__path__)]
    return sorted(
        {
            f"{where}.{name}"
            for where in (PACKAGE, *below)
            for name in public_names(importlib.import_module(where))
        }
    )


if __name__ == "__main__":
    print("\n".join(surface()))
