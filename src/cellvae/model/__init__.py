"""Models: one file each, one line of the table each."""

from cellvae.model.base import Model
from cellvae.model.linear_scvi import LinearSCVI
from cellvae.model.scvi import SCVI

MODELS: dict[str, type[Model]] = {
    "SCVI": SCVI,
    "LinearSCVI": LinearSCVI,
}
"""Every model by the name that files give it."""

__all__ = ["MODELS", "LinearSCVI", "SCVI", "Model"]
