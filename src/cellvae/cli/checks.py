"""Checks of a command line before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cellvae.cli.doublets import class_of_cells
from cellvae.cli.flags import flag_of_option
from cellvae.cli.model_flags import loss_weights, uses_labels
from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


def model_class(name: str) -> Any:
    """Class of a model by its name.

    Raises
    ------
    InvalidOptionError
        If there is no such model.
    """
    from cellvae.model import MODELS

    if name not in MODELS:
        raise InvalidOptionError(
            f"Expected --model to be one of {', '.join(MODELS)}; got '{name}'."
            f"{did_you_mean(name, MODELS)}"
        )
    return MODELS[name]


def check_setup(cls: Any, names: Collection[str], method: str = "setup_anndata") -> None:
    """Check that a model can be set up with keyword arguments of these names.

    Raises
    ------
    InvalidOptionError
        If one of them is unknown, or a required one is missing.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(getattr(cls, method)).parameters.items()
        if name not in ("adata", "mdata")
    }
    unknown = [name for name in names if name not in parameters]
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in names
    ]
    if unknown:
        raise InvalidOptionError(
            f"{cls.__name__}.{method} has no {flag_of_option(unknown[0])}. Leave it out."
        )
    if missing:
        raise InvalidOptionError(
            f"{cls.__name__} needs {' and '.join(map(flag_of_option, missing))}."
        )


def check_options(
    model: str,
    setup: Mapping[str, Any],
    config: Mapping[str, Any],
    train: Mapping[str, Any],
    method: str = "setup_anndata",
) -> None:
    """Check what can be checked before the cells are read.

    Parameters
    ----------
    model
        Name of the model.
    setup, config, train
        Keyword arguments of the set-up, of the model and of `train`.
    method
        Name of the method that sets the model up.

    Raises
    ------
    InvalidOptionError, UnknownOptionError
        If a keyword is unknown or has a value that it cannot take.
    """
    from cellvae.core.options import from_kwargs
    from cellvae.train.options.train_kwargs import parse_train_kwargs

    cls = model_class(model)
    check_setup(class_of_cells(cls), setup, method)
    from_kwargs(cls.Config, config, f"{model}()")
    parse_train_kwargs(train, loss_weights=[*loss_weights(cls)], learns_labels=uses_labels(cls))


def check_colors(colors: Sequence[str], adata: AnnData) -> None:
    """Check that the columns that colour the UMAP exist.

    Raises
    ------
    UnknownKeyError
        If a column does not exist.
    """
    columns = [str(name) for name in adata.obs]
    for color in colors:
        if color not in columns:
            raise UnknownKeyError(
                f"Expected --color to be a column of obs; got '{color}'."
                f"{did_you_mean(color, columns)} The columns are "
                f"{quote_names(columns, 10) or 'none'}."
            )
