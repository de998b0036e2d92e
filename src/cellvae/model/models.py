"""The table of models, by the names that files give them."""

from __future__ import annotations

import inspect
from typing import TypeVar

from cellvae.errors import InvalidOptionError
from cellvae.estimator.model import Model
from cellvae.model.amortized_lda import AmortizedLDA
from cellvae.model.linear_scvi import LinearSCVI
from cellvae.model.peakvi import PEAKVI
from cellvae.model.poissonvi import POISSONVI
from cellvae.model.scanvi import SCANVI
from cellvae.model.scvi import SCVI

M = TypeVar("M", bound=type[Model])

MODELS: dict[str, type[Model]] = {
    "SCVI": SCVI,
    "SCANVI": SCANVI,
    "LinearSCVI": LinearSCVI,
    "PEAKVI": PEAKVI,
    "POISSONVI": POISSONVI,
    "AmortizedLDA": AmortizedLDA,
}
"""Every model by the name that files give it."""


def register(kind: M) -> M:
    """Make a model of your own known by its name, to `cellvae.load` and the command line.

    It can stand above the class as a decorator. A file never says what is to be imported: only
    models that were registered are made.

    Parameters
    ----------
    kind
        Class of the model.

    Returns
    -------
    The class.

    Raises
    ------
    InvalidOptionError
        If it is no model, is not complete, or another class has its name.
    """
    if not (inspect.isclass(kind) and issubclass(kind, Model)):
        raise InvalidOptionError(f"Expected a class that derives from Model; got {kind!r}.")
    missing = sorted(kind.__abstractmethods__)
    if missing:
        raise InvalidOptionError(f"Expected {kind.__name__} to define {', '.join(missing)}.")
    other = MODELS.get(kind.__name__, kind)
    if other is not kind and (other.__module__, other.__qualname__) != (
        kind.__module__,
        kind.__qualname__,
    ):
        raise InvalidOptionError(
            f"Expected a name of its own for the model; '{kind.__name__}' is "
            f"{other.__module__}.{other.__qualname__}. Give the class another name."
        )
    MODELS[kind.__name__] = kind
    return kind
