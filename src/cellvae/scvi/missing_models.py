"""Error for a model that scvi-tools has and this package does not."""

from __future__ import annotations

from collections.abc import Collection

from cellvae.errors import did_you_mean

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
        "RESOLVI",
        "RNAStereoscope",
        "SCAR",
        "SCBASSET",
        "SCVIVA",
        "SpatialStereoscope",
        "SysVI",
        "Tangram",
        "TorchMRVI",
        "VELOVI",
        "VIVS",
        "mlxSCVI",
    ]
)
"""Models of scvi-tools that are not here yet."""

NOT_A_MODEL = {
    "base": "a model of your own derives from cellvae.model.Model",
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


def missing_model_error(module: str, name: str, models: Collection[str]) -> AttributeError:
    """Error of a module without a model of this name.

    Parameters
    ----------
    module, name
        Name of the module, and of the attribute that it does not have.
    models
        Names of the models of this package.
    """
    text = f"module '{module}' has no attribute '{name}'"
    scvi_model = name if name in SCVI_MODEL_NAMES else PACKAGES.get(name)
    own_model = next((model for model in models if name in (model, model.lower())), None)
    if scvi_model is not None:
        text += (
            f". {scvi_model} is a model of scvi-tools that cellvae does not have yet; it has "
            f"{', '.join(models)}"
        )
    elif name in NOT_A_MODEL:
        text += f": {NOT_A_MODEL[name]}"
    elif own_model is not None:
        text += f". Use cellvae.model.{own_model}"
    else:
        text += f".{did_you_mean(name, models)}".rstrip(".")
    return AttributeError(text)
