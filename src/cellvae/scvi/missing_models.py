"""What is said of models that scvi-tools has and this package does not."""

from __future__ import annotations

from cellvae.errors import did_you_mean
from cellvae.model.models import MODELS

SCVI_MODEL_NAMES = frozenset(
    [
        "AUTOZI",
        "CYTOVI",
        "CellAssign",
        "CondSCVI",
        "ContrastiveVI",
        "DIAGVI",
        "DRVI",
        "Decipher",
        "DestVI",
        "GIMVI",
        "JaxMRVI",
        "JaxSCVI",
        "JointEmbeddingSCVI",
        "JointEmbeddingVAE",
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
        "VIVS",
        "mlxSCVI",
    ]
)
"""Models of scvi-tools that are not here yet."""

NOT_A_MODEL = {
    "utils": "minify with model.minify_adata(); nothing else in it is for users",
}
"""Names beside the models of scvi-tools, and what to use in their place."""


PACKAGES = {
    **{name.lower(): name for name in SCVI_MODEL_NAMES},
    "joint_embedding_scvi": "JointEmbeddingSCVI",
    "mrvi_jax": "JaxMRVI",
    "mrvi_torch": "TorchMRVI",
    "stereoscope": "RNAStereoscope",
}
"""Packages of these models in `scvi.external`."""


def missing_model_error(module: str, name: str) -> AttributeError:
    """Error for a name that is no model here."""
    text = f"module '{module}' has no attribute '{name}'"
    of_scvi_tools = name if name in SCVI_MODEL_NAMES else PACKAGES.get(name)
    here = next((model for model in MODELS if name in (model, model.lower())), None)
    if of_scvi_tools is not None:
        text += (
            f". {of_scvi_tools} is a model of scvi-tools that cellvae does not have yet; it has "
            f"{list_models()}"
        )
    elif name in NOT_A_MODEL:
        text += f": {NOT_A_MODEL[name]}"
    elif here is not None:
        text += f". Use cellvae.model.{here}"
    else:
        text += f".{did_you_mean(name, MODELS)}".rstrip(".")
    return AttributeError(text)


def list_models() -> str:
    """Names of the models in a row."""
    return ", ".join(MODELS)
