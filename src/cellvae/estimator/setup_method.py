"""The class method `setup_anndata` of a model, made from its keys."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

from cellvae.core.docstrings import parameter_descriptions
from cellvae.errors import UnknownOptionError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

DOC = """Check the data, and record where they are: counts, batch, labels, covariates.

Only these arguments are stored, in `adata.uns["cellvae"]`; nothing else is changed.

Parameters
----------
adata
    Cells, with their values in `X` or in a layer.
{parameters}

Raises
------
UnknownOptionError
    If there is no such argument.
InvalidOptionError
    If a name is not a string, or a list of names is a string or has a repeated name.
UnknownKeyError
    If a column or layer does not exist.
InvalidDataError
    If values are missing, infinite or, of counts, negative; if a key column has missing values or
    no label that the model can learn; or if names of features repeat.
"""


def make_setup_anndata(owner: str, module: str, keys_type: type, first: Sequence[str] = ()) -> Any:
    """Class method `setup_anndata`, with the signature and the documentation of its keys.

    Parameters
    ----------
    owner
        Name of the class that the method is for.
    module
        Module of that class.
    keys_type
        Keys of the model. Their docstring describes the arguments, and their fields give names and
        defaults.
    first
        Names of the arguments that come first by position, after those that must be given. The
        others follow in the order of the fields.
    """

    def setup_anndata(cls: Any, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        arguments = bind_arguments(f"{owner}.setup_anndata()", signature, (adata, *args), kwargs)
        cells = arguments.pop("adata")
        cls.register(cells, cls.keys_of_setup(cells, arguments))

    of_keys = ordered_parameters(keys_type, first)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    data = inspect.Parameter("adata", positional, annotation="AnnData")
    signature = inspect.Signature([data, *of_keys], return_annotation="None")
    bound = inspect.Parameter("cls", positional)
    method: Any = setup_anndata
    method.__signature__ = signature.replace(parameters=[bound, data, *of_keys])
    method.__annotations__ = {p.name: p.annotation for p in (data, *of_keys)} | {"return": "None"}
    method.__doc__ = setup_doc(keys_type, [parameter.name for parameter in of_keys])
    method.made_of_keys = True
    method.__qualname__, method.__module__ = f"{owner}.setup_anndata", module
    return classmethod(method)


def ordered_parameters(keys_type: type, first: Sequence[str]) -> list[inspect.Parameter]:
    """Parameter of each key: those that must be given, those named in `first`, the others."""
    declared: dict[str, Field[Any]] = {field.name: field for field in fields(keys_type)}
    required = [name for name, field in declared.items() if is_required(field)]
    parameters = []
    for name in dict.fromkeys([*required, *first, *declared]):
        field = declared[name]
        several = isinstance(field.default, tuple)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if is_required(field) else None,
                annotation="Sequence[str] | None" if several else field.type,
            )
        )
    return parameters


def is_required(field: Field[Any]) -> bool:
    """Whether a key has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def setup_doc(keys_type: type, names: Sequence[str]) -> str:
    """Documentation of `setup_anndata` in numpy style, from that of the keys."""
    descriptions = parameter_descriptions(keys_type)
    lines = []
    for name in names:
        text = textwrap.fill(
            descriptions.get(name, ""), 96, initial_indent="    ", subsequent_indent="    "
        )
        lines.append(f"{name}\n{text}" if text else name)
    return DOC.format(parameters="\n".join(lines))


def bind_arguments(
    function: str, signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of a call by name, without those that were not given.

    Raises
    ------
    UnknownOptionError
        If there is no such argument.
    TypeError
        If one is missing, is given twice, or there are too many.
    """
    for name in kwargs:
        if name not in signature.parameters:
            raise UnknownOptionError(
                f"{function} got an unexpected keyword argument '{name}'."
                f"{did_you_mean(name, [*signature.parameters])}"
            )
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(f"{function}: {error}.") from None
