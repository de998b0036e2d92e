"""Where the user says things are: layer, batch, labels, size factor, covariates."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

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
"""Entry of `adata.uns` that holds what the user said, one entry for each model."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of columns and layers of an AnnData; each model declares which it understands.

    A subclass declares fields only. A field whose default is a tuple takes several names;
    a field without a default must be given; every other field takes one name or None.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple):
                value = check_names(value, field.name)
            else:
                required = field.default is dataclasses.MISSING
                value = check_name(value, field.name, required=required)
            object.__setattr__(self, field.name, value)

    def to_json(self) -> dict[str, str | list[str]]:
        """Words that the user gave, as values that JSON and h5ad files hold."""
        words = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            word: list(value) if isinstance(value, tuple) else value
            for word, value in words.items()
            if value is not None and value != ()
        }


K = TypeVar("K", bound=Keys)


@dataclass(frozen=True, kw_only=True)
class CountKeys(Keys):
    """Where the counts of a model are, and what is known of each cell.

    Parameters
    ----------
    layer
        Entry of `adata.layers` with the counts; `adata.X` if not given.
    batch_key
        Column of `adata.obs` with the batch of each cell.
    labels_key
        Column of `adata.obs` with the label of each cell.
    size_factor_key
        Column of `adata.obs` with the size factor of each cell, above 0.
    categorical_covariate_keys
        Columns of `adata.obs` with further categories to correct for.
    continuous_covariate_keys
        Columns of `adata.obs` with further numbers to correct for.

    Raises
    ------
    InvalidOptionError
        If a name is not text, or several names are one text or hold a repeated name.
    """

    layer: str | None = None
    batch_key: str | None = None
    labels_key: str | None = None
    size_factor_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelKeys(CountKeys):
    """Where the counts of a model are, and the labels of some of the cells.

    Parameters
    ----------
    labels_key
        Column of `adata.obs` with the label of each cell, as far as it is known.
    unlabeled_category
        Value of that column for cells whose label is not known.
    layer, batch_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        As in :class:`CountKeys`.

    Raises
    ------
    InvalidOptionError
        If a name is not text, or several names are one text or hold a repeated name.
    """

    labels_key: str = dataclasses.field()
    unlabeled_category: str


def check_name(value: object, argument: str, *, required: bool = False) -> str | None:
    """One name of a column or layer, or None where it may be left out."""
    if isinstance(value, str):
        return str(value)
    if value is None and not required:
        return None
    raise InvalidOptionError(f"Expected a name (text) for {argument}; got {value!r}.")


def check_names(value: object, argument: str) -> tuple[str, ...]:
    """Names of columns in the order given, none of them twice."""
    if value is None:
        return ()
    if isinstance(value, str):
        raise InvalidOptionError(
            f"Expected a list of names for {argument}; got the text '{value}'. "
            f"Write {argument}=['{value}']."
        )
    if not isinstance(value, Iterable) or isinstance(value, (set, frozenset, Mapping)):
        raise InvalidOptionError(f"Expected a list of names for {argument}; got {value!r}.")
    names = tuple(str(name) if isinstance(name, str) else name for name in value)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InvalidOptionError(f"Expected names (text) in {argument}; got {wrong[0]!r}.")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidOptionError(
            f"Expected each name in {argument} once; got {quote_names(twice)} more than once."
        )
    return names


def keys_from_kwargs(kwargs: Mapping[str, object], keys_type: type[K]) -> K:
    """Keys from words as they were written down.

    Raises
    ------
    InvalidOptionError
        If a word is not one of the model's, or has a value that it cannot take.
    """
    known = [field.name for field in dataclasses.fields(keys_type)]
    for word in kwargs:
        if word not in known:
            raise InvalidOptionError(
                f"Expected the words {quote_names(known, most=20)}; got '{word}'."
                f"{did_you_mean(str(word), known)}"
            )
    missing = [
        field.name
        for field in dataclasses.fields(keys_type)
        if field.default is dataclasses.MISSING and field.name not in kwargs
    ]
    if missing:
        raise InvalidOptionError(
            f"Expected the words {quote_names(missing)}; got {quote_names([*kwargs])}."
        )
    return keys_type(**dict(kwargs))


def check_is_anndata(adata: object) -> None:
    """Refuse what is no AnnData.

    Raises
    ------
    InvalidDataError
        If so, naming its type.
    """
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise InvalidDataError(f"Expected an AnnData; got {type(adata).__name__}.")


def store_keys(adata: AnnData, model: str, keys: Keys) -> None:
    """Write down in `adata.uns` what the user said, and nothing else.

    Only plain words are written, under `adata.uns["cellvae"][model]`, so they are copied and
    saved with the object. A view becomes an object of its own, as with any writing to it.

    Raises
    ------
    InvalidDataError
        If `adata` is not an AnnData, or is a view of one opened in backed mode.
    """
    from anndata import ImplicitModificationWarning

    check_is_anndata(adata)
    if adata.is_view and adata.isbacked:
        raise InvalidDataError(
            "Expected an AnnData that can be written to; got a view of one opened in backed "
            "mode. Set up the whole AnnData and choose cells later, or load the view with "
            "adata.to_memory()."
        )
    stored = adata.uns.get(UNS_KEY, {})
    if not isinstance(stored, Mapping):
        raise InvalidDataError(
            f"Expected adata.uns['{UNS_KEY}'] to be free for setup_anndata; got a value of type "
            f"{type(stored).__name__} there. Rename it."
        )
    words = {**stored, model: keys.to_json()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        adata.uns[UNS_KEY] = words


def stored_keys(adata: AnnData, model: str, keys_type: type[K]) -> K | None:
    """Keys that were stored for a model, None if the AnnData was never set up for it.

    Raises
    ------
    NotSetUpError
        If what is stored there is not what this version of the model understands.
    """
    check_is_anndata(adata)
    stored = adata.uns.get(UNS_KEY)
    words = stored.get(model) if isinstance(stored, Mapping) else None
    if words is None:
        return None
    try:
        if not isinstance(words, Mapping):
            raise InvalidOptionError(f"Expected words and their values; got {words!r}.")
        return keys_from_kwargs(words, keys_type)
    except InvalidOptionError as error:
        raise NotSetUpError(
            f"Cannot read adata.uns['{UNS_KEY}']['{model}']: {error} Call setup_anndata again."
        ) from error
