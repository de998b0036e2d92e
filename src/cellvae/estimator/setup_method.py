"""The class methods `setup_anndata` and `setup_mudata` of a model, made from its keys."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from cellvae.core.docstrings import parameter_descriptions
from cellvae.data.setup.keys import ACCEPTS_ONE, Keys, SetupArgument
from cellvae.data.setup.mudata_keys import MODALITIES, RNA_LAYER, MuDataKeys
from cellvae.errors import UnknownOptionError, did_you_mean

ANNDATA_DOC = """Check the data, and record where they are: counts, batch, labels, covariates.

Only these arguments are stored, in `adata.uns["cellvae"]`; nothing else is changed.

Parameters
----------
adata
{cells}
{parameters}

Raises
------
UnknownOptionError
    If there is no such argument.
InvalidOptionError
    If a name is not a string, or a list of names is a string or has a repeated name.
UnknownKeyError
    If a column, a layer or an entry does not exist.
InvalidDataError
    If values are missing, infinite or, of counts, negative; if a key column has missing values or
    no label that the model can learn; or if names of features repeat.
"""
MUDATA_DOC = """Check the counts in the modalities of a MuData, and record where the rest is.

Only these arguments are stored, in `mdata.uns["cellvae"]`; nothing else is changed.

Parameters
----------
mdata
{cells}
{parameters}

Raises
------
UnknownOptionError
    If there is no such argument.
InvalidOptionError
    If `modalities` lacks a table, or has an entry that is no argument; or as for
    :meth:`setup_anndata`.
UnknownKeyError
    If a modality, a column or a layer does not exist.
DataMismatchError
    If a modality lacks cells that it must have.
InvalidDataError
    As for :meth:`setup_anndata`.
"""


def make_setup_anndata(
    owner: str, module: str, keys_type: type[Keys], first: Sequence[str] = ()
) -> Any:
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
        others follow in the order of the keys.
    """

    def setup_anndata(cls: Any, adata: Any, *args: Any, **kwargs: Any) -> None:
        arguments = bind_arguments(f"{owner}.setup_anndata()", signature, (adata, *args), kwargs)
        cells = arguments.pop("adata")
        cls.register(cells, cls.keys_of_setup(cells, arguments))

    arguments = keys_type.anndata_setup(first)
    doc = ANNDATA_DOC.format(
        cells=indent_lines(keys_type.cells_text), parameters=parameter_texts(keys_type, arguments)
    )
    signature = setup_signature("adata", "AnnData", arguments)
    return as_setup_method(setup_anndata, owner, module, signature, doc)


def make_setup_mudata(owner: str, module: str, keys_type: type[MuDataKeys]) -> Any:
    """Class method `setup_mudata`, as :func:`make_setup_anndata` makes `setup_anndata`."""

    def setup_mudata(cls: Any, mdata: Any, *args: Any, **kwargs: Any) -> None:
        given = bind_arguments(f"{owner}.setup_mudata()", signature, (mdata, *args), kwargs)
        cells = given.pop("mdata")
        values = {keys_by_name[name]: value for name, value in given.items()}
        values[MODALITIES] = keys_type.setup_modalities(values.get(MODALITIES))
        cls.register(cells, cls.keys_of_setup(cells, values))

    arguments = keys_type.mudata_setup()
    keys_by_name = {argument.name: argument.key for argument in arguments}
    parameters = parameter_texts(keys_type, arguments).replace("`adata.obs`", "`obs`")
    doc = MUDATA_DOC.format(cells=indent_lines(keys_type.mudata_text), parameters=parameters)
    signature = setup_signature("mdata", "MuData", arguments)
    return as_setup_method(setup_mudata, owner, module, signature, doc)


def as_setup_method(
    function: Any, owner: str, module: str, signature: inspect.Signature, doc: str
) -> Any:
    """Class method with a signature and a documentation of its own."""
    bound = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [*signature.parameters.values()]
    function.__signature__ = signature.replace(parameters=[bound, *parameters])
    function.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": "None"}
    function.__doc__ = doc
    function.made_of_keys = True
    function.__qualname__, function.__module__ = f"{owner}.{function.__name__}", module
    return classmethod(function)


def is_made_of_keys(cls: type, name: str) -> bool:
    """Whether a class has a set-up that was made of its keys, or none yet: none is written out."""
    method = getattr(cls, name, None)
    return method is None or getattr(method, "made_of_keys", False)


def setup_signature(
    cells: str, cells_type: str, arguments: Sequence[SetupArgument]
) -> inspect.Signature:
    """Signature of a set-up: the cells, and the arguments in their order."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(cells, kind, annotation=cells_type)]
    parameters += [
        inspect.Parameter(
            argument.name,
            kind,
            default=inspect.Parameter.empty if argument.required else None,
            annotation=setup_annotation(argument),
        )
        for argument in arguments
    ]
    return inspect.Signature(parameters, return_annotation="None")


def setup_annotation(argument: SetupArgument) -> str:
    """Type of an argument: that of its key, in which None is the default."""
    field = argument.field
    if argument.key == MODALITIES:
        return "Mapping[str, str | None] | None"
    if isinstance(field.default, tuple):
        one = "str | " if ACCEPTS_ONE in field.metadata else ""
        return f"{one}Sequence[str] | None"
    of_key = str(field.type).removesuffix(" | None")
    return of_key if argument.required else f"{of_key} | None"


def parameter_texts(keys_type: type[Keys], arguments: Sequence[SetupArgument]) -> str:
    """Texts of the arguments in numpy style, from the docstring of the keys."""
    descriptions = parameter_descriptions(keys_type)
    if issubclass(keys_type, MuDataKeys):
        descriptions[RNA_LAYER] = keys_type.rna_layer_text
    return "\n".join(
        f"{argument.name}\n{indent_lines(descriptions.get(argument.name, ''))}".rstrip()
        for argument in arguments
    )


def indent_lines(text: str) -> str:
    """Text as a description in numpy style."""
    return textwrap.fill(text, 96, initial_indent="    ", subsequent_indent="    ")


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
