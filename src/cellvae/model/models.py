"""Table of all model classes by name: registration of a model of one's own, and `load`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

from cellvae.errors import FileFormatError, InvalidOptionError, did_you_mean
from cellvae.estimator.model import Model
from cellvae.estimator.model_io import read_model
from cellvae.model.amortized_lda import AmortizedLDA
from cellvae.model.linear_scvi import LinearSCVI
from cellvae.model.multivi import MULTIVI
from cellvae.model.peakvi import PEAKVI
from cellvae.model.poissonvi import POISSONVI
from cellvae.model.scanvi import SCANVI
from cellvae.model.scvi import SCVI
from cellvae.model.solo import SOLO
from cellvae.model.totalanvi import TOTALANVI
from cellvae.model.totalvi import TOTALVI
from cellvae.scvi.files import is_scvi_model, read_scvi_model

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

M = TypeVar("M", bound=type[Model])

MODELS: dict[str, type[Model]] = {
    "SCVI": SCVI,
    "SCANVI": SCANVI,
    "LinearSCVI": LinearSCVI,
    "PEAKVI": PEAKVI,
    "POISSONVI": POISSONVI,
    "AmortizedLDA": AmortizedLDA,
    "SOLO": SOLO,
    "TOTALVI": TOTALVI,
    "TOTALANVI": TOTALANVI,
    "MULTIVI": MULTIVI,
}
"""Every model class by its name, which saved files contain."""


def register(cls: M) -> M:
    """Register a model class of your own for `cellvae.load` and the command line.

    Can be used as a class decorator. A saved file never says what is imported: only registered
    classes are instantiated.

    Parameters
    ----------
    cls
        Class of the model.

    Returns
    -------
    The class.

    Raises
    ------
    InvalidOptionError
        If it is not a model class, has abstract methods, or another class has its name.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Model)):
        raise InvalidOptionError(f"Expected a class that derives from Model; got {cls!r}.")
    missing = sorted(cls.__abstractmethods__)
    if missing:
        raise InvalidOptionError(f"Expected {cls.__name__} to define {', '.join(missing)}.")
    other = MODELS.get(cls.__name__, cls)
    if other is not cls and (other.__module__, other.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise InvalidOptionError(
            f"Expected a name of its own for the model; '{cls.__name__}' is "
            f"{other.__module__}.{other.__qualname__}. Give the class another name."
        )
    MODELS[cls.__name__] = cls
    return cls


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
