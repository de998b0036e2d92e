"""Variational autoencoders of single-cell data: `import cellvae as scvi` and go on.

Submodules are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.messages import show_messages

# Not loaded at first use: the module of this name would then stand here in place of the object.
from cellvae.settings import settings
from cellvae.version import __version__

if TYPE_CHECKING:
    from cellvae import (
        data,
        distributions,
        errors,
        inference,
        model,
        nn,
        persistence,
        plotting,
        train,
    )
    from cellvae.model.loading import load

__all__ = [
    "__version__",
    "data",
    "distributions",
    "errors",
    "evaluation",
    "inference",
    "load",
    "model",
    "nn",
    "persistence",
    "plotting",
    "settings",
    "train",
]

show_messages()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "load":
        return import_module("cellvae.model.loading").load
    if name in __all__:
        return import_module(f"cellvae.{name}")
    raise AttributeError(f"module 'cellvae' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
