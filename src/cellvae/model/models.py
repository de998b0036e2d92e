"""Table of all model classes by name, and registration of a model of one's own."""

from __future__ import annotations

import inspect
from typing import TypeVar

from cellvae.errors import InvalidOptionError
from cellvae.estimator.model import Model
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
