"""Models: one file each, one line of the table each."""

from cellvae.model.base import Model
from cellvae.model.scvi import SCVI

MODELS: dict[str, type[Model]] = {
    "SCVI": SCVI,
}
"""Every model by the name that files give it."""

__all__ = ["MODELS", "SCVI", "Model"]
