"""Load a saved model of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.errors import FileFormatError, did_you_mean
from cellvae.estimator.model_io import read_model
from cellvae.model import MODELS, Model
from cellvae.scvi.files import is_scvi_model, read_scvi_model

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def load(
    dir_path: str | Path,
    adata: AnnData | None = None,
    accelerator: str = "auto",
    device: int | str = "auto",
    prefix: str | None = None,
) -> Model:
    """Model from a folder, of the kind that the folder says.

    Parameters
    ----------
    dir_path
        Folder that `model.save` or a checkpoint wrote, or scvi-tools 0.15 and later.
    adata
        Cells for the model; None for those saved with it, if any.
    accelerator, device
        Where the network is put.
    prefix
        Beginning of the names of the files.

    Raises
    ------
    FileFormatError
        If files are missing or damaged, or the model is not one that this version knows.
    """
    foreign = is_scvi_model(dir_path, prefix or "")
    name = (read_scvi_model if foreign else read_model)(dir_path, prefix or "").name
    if name not in MODELS:
        known = ", ".join(MODELS)
        raise FileFormatError(
            f"Expected a model of a kind that this version knows ({known}); got '{name[:80]}' in "
            f"{dir_path}.{did_you_mean(name[:80], MODELS)}"
        )
    return MODELS[name].load(dir_path, adata, accelerator, device, prefix)
