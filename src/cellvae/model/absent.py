"""What is said of models that scvi-tools has and this package does not."""

from __future__ import annotations

from cellvae.errors import did_you_mean
from cellvae.model.table import MODELS

OF_SCVI_TOOLS = frozenset(
    [
        "AUTOZI",
        "CYTOVI",
        "CellAssign",
        "CondSCVI",
        "ContrastiveVI",
        "Decipher",
        "DestVI",
        "GIMVI",
        "JaxSCVI",
        "METHYLANVI",
        "METHYLVI",
        "MRVI",
        "MULTIVI",
        "RESOLVI",
        "RNAStereoscope",
        "SCAR",
        "SCBASSET",
        "SCVIVA",
        "SOLO",
        "SpatialStereoscope",
        "SysVI",
        "TOTALANVI",
        "TOTALVI",
        "Tangram",
        "TorchMRVI",
        "VELOVI",
        "mlxSCVI",
    ]
)
"""Models of scvi-tools that are not here yet."""


def no_model(module: str, name: str) -> AttributeError:
    """Error for a name that is no model here."""
    text = f"module '{module}' has no attribute '{name}'"
    if name in OF_SCVI_TOOLS:
        text += f". It is a model of scvi-tools that cellvae does not have yet; it has {known()}"
    elif name in MODELS:
        text += f". Use cellvae.model.{name}"
    else:
        text += f".{did_you_mean(name, MODELS)}".rstrip(".")
    return AttributeError(text)


def known() -> str:
    """Names of the models in a row."""
    return ", ".join(MODELS)
