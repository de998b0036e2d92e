"""Options and sizes of a network as attributes of it, as notebooks of scvi-tools read them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from cellvae.data import Registration

RENAMED_SIZES = {
    "n_genes": "n_input",
    "n_continuous": "n_continuous_cov",
    "size_factor": "use_size_factor_key",
}
"""Sizes by the names that they have in scvi-tools, where these differ."""


def add_network_attributes(module: nn.Module, config: Any, registration: Registration[Any]) -> None:
    """Set options and sizes as attributes of a network that has none of these names itself.

    Parameters
    ----------
    module
        Network of a model.
    config
        Options of the model, such as `n_latent`.
    registration
        Data that it was made for, the source of `n_input`.
    """
    # Networks have their own where options that were left out are found from the data.
    chosen = getattr(module, "config", config)
    values = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    sizes: Any = getattr(module, "sizes", None)
    if is_dataclass(sizes):
        values |= {
            RENAMED_SIZES.get(field.name, field.name): getattr(sizes, field.name)
            for field in fields(sizes)
        }
    values |= {"n_input": registration.n_genes}
    for name, value in values.items():
        if not hasattr(module, name):
            setattr(module, name, value)
