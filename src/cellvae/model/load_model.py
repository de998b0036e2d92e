"""`load`: a saved model of any class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.errors import FileFormatError, did_you_mean
from cellvae.estimator.model import Model
from cellvae.estimator.model_io import read_model
from cellvae.model.models import MODELS
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
    """Load a model of the class that its files name.

    Parameters
    ----------
    dir_path
        Folder written by `model.save`, by a checkpoint, or by scvi-tools 0.15 and later.
    adata
        Cells for the model; None for those saved with it, if any.
    accelerator, device
        Device of the network; `"auto"` is a CUDA device if there is one.
    prefix
        Prefix of the file names.

    Raises
    ------
    FileFormatError
        If files are missing or damaged, or this version has no such model.
    """
    is_scvi = is_scvi_model(dir_path, prefix or "")
    name = (read_scvi_model if is_scvi else read_model)(dir_path, prefix or "").name
    if name not in MODELS:
        known = ", ".join(MODELS)
        raise FileFormatError(
            f"Expected a model that this version knows ({known}); got '{name[:80]}' in "
            f"{dir_path}.{did_you_mean(name[:80], MODELS)}"
        )
    return MODELS[name].load(dir_path, adata, accelerator, device, prefix)
