"""Names that users may rely on, one on each line; `make public-names` writes them to a file.

A member of a class is listed once, where it is defined, and hooks that Lightning declares are not
listed: they are called by its trainer.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

PACKAGE = "cellvae"

INTERNAL = frozenset(
    {"cli", "core", "estimator", "kernels", "persistence", "pickles", "report", "scvi"}
)
"""Folders whose names may change in any version."""


def public_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Names that a module offers, with their values: those of `__all__`, or those it defines."""
    listed = getattr(module, "__all__", None)
    for name in vars(module) if listed is None else listed:
        value = getattr(module, name)
        defined_here = getattr(value, "__module__", None) == module.__name__
        if listed is not None or (not name.startswith("_") and defined_here):
            yield name, value


def public_members(owner: type, public: set[type]) -> set[str]:
    """Attributes of a class, its fields among them, without those of its public base classes."""
    from lightning.pytorch import Callback

    own: set[str] = set()
    for cls in owner.__mro__:
        if cls.__module__.partition(".")[0] == PACKAGE:
            own |= {*inspect.get_annotations(cls), *vars(cls)}
    for base in owner.__mro__[1:]:
        if base in public or base is Callback:
            own -= {*dir(base), *inspect.get_annotations(base)}
    return {name for name in own if not name.startswith("_")}


def surface() -> list[str]:
    """Names of the root package and of the modules and folders right below it."""
    root = importlib.import_module(PACKAGE)
    below = [found.name for found in pkgutil.iter_modules(root.__path__)]
    modules = [
        root,
        *(importlib.import_module(f"{PACKAGE}.{name}") for name in below if name not in INTERNAL),
    ]
    named = [(module.__name__, *found) for module in modules for found in public_names(module)]
    public = {value for *_, value in named if inspect.isclass(value)}
    names = {f"{where}.{name}" for where, name, _ in named}
    listed: set[type] = set()
    for where, name, value in named:
        if inspect.isclass(value) and value not in listed:
            listed.add(value)
            names |= {f"{where}.{name}.{member}" for member in public_members(value, public)}
    return sorted(names)


if __name__ == "__main__":
    print("\n".join(surface()))
