"""Models that scvi-tools keeps under this name; here they are models as all others."""

from __future__ import annotations

from cellvae.model import MODELS, POISSONVI, SOLO, TOTALANVI
from cellvae.scvi.missing_models import missing_model_error

__all__ = ["POISSONVI", "SOLO", "TOTALANVI"]


def __getattr__(name: str) -> object:
    raise missing_model_error("cellvae.external", name, MODELS)


def __dir__() -> list[str]:
    return sorted(__all__)
