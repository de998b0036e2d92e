"""Keys: names of the layer and the columns of an AnnData that `setup_anndata` was given."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from cellvae.data.setup.tables.cells import check_is_cells
from cellvae.errors import (
    InvalidDataError,
    InvalidOptionError,
    NotSetUpError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

UNS_KEY = "cellvae"
"""Entry of `adata.uns` with the keys of every model that the AnnData was set up for."""


ACCEPTS_ONE = "accepts_one"
"""Entry of the metadata of a field that takes several names, or one as a string."""


class SetupArgument(NamedTuple):
    """Argument of a method that sets cells up for a model."""

    name: str
    key: str
    """Name of the key that it gives."""
    field: dataclasses.Field[Any]
    """Declaration of the key."""
    required: bool
    """Whether the argument has no default."""


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a key has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of columns and layers of an AnnData; each model declares its own keys.

    A subclass declares fields, and their texts in its docstring. A field whose default is a tuple
    takes several names; a field without a default must be given; every other field takes one name
    or None. One with a default factory is checked by the subclass.
    """

    cells_text: ClassVar[str] = "Cells, with their values in `X` or in a layer."
    """What the AnnData of `setup_anndata` has to hold, for its documentation."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default_factory is not dataclasses.MISSING:
                continue
            if isinstance(field.default, tuple):
                one = isinstance(value, str) and ACCEPTS_ONE in field.metadata
                value = check_key_names([value] if one else value, field.name)
            else:
                required = field.default is dataclasses.MISSING
                value = check_name(value, field.name, required=required)
            object.__setattr__(self, field.name, value)

    @classmethod
    def anndata_setup(cls, first: Sequence[str] = ()) -> tuple[SetupArgument, ...]:
        """Arguments of `setup_anndata`, by position: those that must be given, then the others.

        Parameters
        ----------
        first
            Names of the arguments that come first among the others.
        """
        declared = {field.name: field for field in dataclasses.fields(cls)}
        required = [name for name, field in declared.items() if is_required(field)]
        names = dict.fromkeys([*required, *first, *declared])
        return tuple(SetupArgument(name, name, declared[name], name in required) for name in names)

    @property
    def unused_keys(self) -> tuple[str, ...]:
        """Keys that the set-up that was called does not have."""
        return ()

    @property
    def repeated_fields(self) -> tuple[str, ...]:
        """Fields that read the same column as another one, of which scvi-tools has one."""
        return ()

    def modality(self, key: str) -> str | None:
        """Modality in which a key is found; None for an AnnData, or the `obs` of a MuData."""
        modalities: Mapping[str, str] = getattr(self, "modalities", {})
        return modalities.get(key)

    def to_json(self) -> dict[str, str | list[str] | dict[str, str]]:
        """Keys that the user has set, as values that JSON and h5ad files hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != () and value != {}
        }


K = TypeVar("K", bound=Keys)


@dataclass(frozen=True, kw_only=True)
class CountKeys(Keys):
    """Names of the counts, the batch, the labels and the covariates of a count model.

    Parameters
    ----------
    layer
        Layer that holds the raw counts; None for `X`.
    batch_key
        Column of `adata.obs` with the batch of each cell.
    labels_key
        Column of `adata.obs` with the label of each cell.
    size_factor_key
        Column of `adata.obs` with the library size of each cell, above 0, used in place of the sum
        of its counts.
    categorical_covariate_keys
        Columns of `adata.obs` with further categories to correct for.
    continuous_covariate_keys
        Columns of `adata.obs` with numbers to correct for.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    layer: str | None = None
    batch_key: str | None = None
    labels_key: str | None = None
    size_factor_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelKeys(CountKeys):
    """Names of the counts and the labels of a semi-supervised model, and of its covariates.

    Parameters
    ----------
    labels_key
        Column of `adata.obs` with the label of each cell, where it is known.
    unlabeled_category
        Value of that column for cells whose label is not known; missing values count as well. No
        cell needs to have it.
    layer, batch_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        As in :class:`CountKeys`.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    labels_key: str = dataclasses.field()
    unlabeled_category: str


def check_name(value: object, argument: str, *, required: bool = False) -> str | None:
    """Name of a column or layer, or None if it is not required."""
    if isinstance(value, str):
        return str(value)
    if value is None and not required:
        return None
    raise InvalidOptionError(f"Expected a name (a string) for {argument}; got {value!r}.")


def check_key_names(value: object, argument: str) -> tuple[str, ...]:
    """Names of columns as a tuple, all different."""
    if value is None:
        return ()
    if isinstance(value, str):
        raise InvalidOptionError(
            f"Expected a list of names for {argument}; got the string '{value}'. "
            f"Write {argument}=['{value}']."
        )
    if not isinstance(value, Iterable) or isinstance(value, (set, frozenset, Mapping)):
        raise InvalidOptionError(f"Expected a list of names for {argument}; got {value!r}.")
    names = tuple(str(name) if isinstance(name, str) else name for name in value)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InvalidOptionError(f"Expected names (strings) in {argument}; got {wrong[0]!r}.")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise InvalidOptionError(
            f"Expected each name in {argument} once; got {quote_names(repeated)} more than once."
        )
    return names


def keys_from_kwargs(kwargs: Mapping[str, object], keys_type: type[K]) -> K:
    """Keys from stored keyword arguments.

    Raises
    ------
    InvalidOptionError
        If the model has no such key, or a key has an invalid value.
    """
    known = [field.name for field in dataclasses.fields(keys_type)]
    for name in kwargs:
        if name not in known:
            raise InvalidOptionError(
                f"Expected the keys {quote_names(known, most=20)}; got '{name}'."
                f"{did_you_mean(str(name), known)}"
            )
    missing = [
        field.name
        for field in dataclasses.fields(keys_type)
        if is_required(field) and field.name not in kwargs
    ]
    if missing:
        raise InvalidOptionError(
            f"Expected the keys {quote_names(missing)}; got {quote_names([*kwargs])}."
        )
    given: dict[str, Any] = dict(kwargs)
    return keys_type(**given)


def store_keys(adata: AnnData, model: str, keys: Keys) -> None:
    """Store the keys of a model in `adata.uns`, and nothing else.

    Only strings and lists are written, under `adata.uns["cellvae"][model]`, so they are copied and
    saved with the object. A view becomes an actual AnnData, as with any write to it.

    Raises
    ------
    InvalidDataError
        If `adata` is not an AnnData, or is a view of one opened in backed mode.
    """
    from anndata import ImplicitModificationWarning

    check_is_cells(adata)
    if adata.is_view and adata.isbacked:
        raise InvalidDataError(
            "Expected an AnnData that can be written to; got a view of one opened in backed "
            "mode. Set up the whole AnnData and select cells later, or load the view with "
            "adata.to_memory()."
        )
    stored = adata.uns.get(UNS_KEY, {})
    if not isinstance(stored, Mapping):
        raise InvalidDataError(
            f"Expected adata.uns['{UNS_KEY}'] to be free for setup_anndata; got a value of type "
            f"{type(stored).__name__} there. Rename it."
        )
    updated = {**stored, model: keys.to_json()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        adata.uns[UNS_KEY] = updated


def stored_keys(adata: AnnData, model: str, keys_type: type[K]) -> K | None:
    """Keys that were stored for a model; None if the AnnData was not set up for it.

    Raises
    ------
    NotSetUpError
        If the stored entry is not valid for this version of the model.
    """
    check_is_cells(adata)
    stored = adata.uns.get(UNS_KEY)
    kwargs = stored.get(model) if isinstance(stored, Mapping) else None
    if kwargs is None:
        return None
    try:
        if not isinstance(kwargs, Mapping):
            raise InvalidOptionError(f"Expected a mapping of keys; got {kwargs!r}.")
        return keys_from_kwargs(kwargs, keys_type)
    except InvalidOptionError as error:
        raise NotSetUpError(
            f"Cannot read adata.uns['{UNS_KEY}']['{model}']: {error} Call setup_anndata again."
        ) from error
