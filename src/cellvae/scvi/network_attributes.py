"""Options and sizes of a network as its attributes, which notebooks of scvi-tools read."""

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
"""Names of sizes in scvi-tools, where they differ."""


def add_network_attributes(module: nn.Module, config: Any, registration: Registration[Any]) -> None:
    """Set options and sizes as attributes of a network, unless it has attributes of these names.

    Parameters
    ----------
    module
        Network of a model.
    config
        Options of the model, such as `n_latent`.
    registration
        Registration of the data, for `n_input`.
    """
    # Some networks have a config in which options of None are replaced by values from the data.
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
