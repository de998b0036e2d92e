"""Variational autoencoders of single-cell data: `import cellvae as scvi` and go on.

Submodules are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.core.cpu_threads import cpu_threads
from cellvae.core.log import show_messages
from cellvae.core.platform.fork import register_fork_handlers
from cellvae.errors import missing_name_error

# Not loaded at first use: the module of this name would then stand here in place of the object.
from cellvae.settings import settings
from cellvae.version import __version__

if TYPE_CHECKING:
    from cellvae import (
        autotune,
        criticism,
        data,
        distributions,
        errors,
        evaluation,
        external,
        inference,
        model,
        nn,
        persistence,
        plotting,
        train,
        tune,
        utils,
    )
    from cellvae.model.models import load
    from cellvae.scvi.registry import REGISTRY_KEYS

__all__ = [
    "REGISTRY_KEYS",
    "__version__",
    "autotune",
    "criticism",
    "data",
    "distributions",
    "errors",
    "evaluation",
    "external",
    "inference",
    "load",
    "model",
    "nn",
    "persistence",
    "plotting",
    "settings",
    "train",
    "tune",
    "utils",
]

INSTEAD = {
    "dataloaders": (
        "models read cells themselves; give the AnnData, which may be backed by a file, and the "
        "arguments of the split to train()"
    ),
    "hub": "share the folder that model.save(...) writes, and read it with cellvae.load",
    "module": "the network of a model is model.module",
}
"""Parts of scvi-tools that are not here, and what to use in their place."""

show_messages()
cpu_threads.shorten_spin()
register_fork_handlers()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "load":
        return import_module("cellvae.model.models").load
    if name == "REGISTRY_KEYS":
        return import_module("cellvae.scvi.registry").REGISTRY_KEYS
    if name in __all__:
        return import_module(f"cellvae.{name}")
    raise missing_name_error("cellvae", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
