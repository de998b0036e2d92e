"""Fields of a model: counts, categories, labels and continuous values, read from an AnnData."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from cellvae.data.setup.checks import check_counts
from cellvae.data.setup.obs_columns import (
    category_codes,
    column_categories,
    label_categories,
    numeric_column,
)
from cellvae.data.setup.records import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    FieldRecord,
    NumbersRecord,
)
from cellvae.data.storage.count_matrix import CountMatrix, count_matrix
from cellvae.data.storage.disk import BackedColumn
from cellvae.data.storage.memory import (
    CategoricalColumn,
    ContinuousColumn,
    DenseColumn,
    SparseColumn,
)
from cellvae.errors import DataMismatchError, InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.setup.keys import CountKeys, LabelKeys
    from cellvae.data.storage.column import Column


class Field(ABC):
    """Part of an AnnData that a model reads; `name` is its name in a batch."""

    name: str

    @abstractmethod
    def describe(self, adata: AnnData) -> FieldRecord:
        """Record of the field in an AnnData, after a check of all values."""

    @abstractmethod
    def read(self, adata: AnnData, record: Any, genes: NDArray[np.int64] | None) -> Column | None:
        """Column of all cells; None if the user has set no key for this field.

        `genes` are the indices of the model's genes in the AnnData; None if they are the same.
        """


@final
@dataclass(frozen=True)
class Counts(Field):
    """Counts of every gene, from `adata.X` or a layer: [cells, genes].

    With `refuse_if_was_binary`, `check` refuses counts above 1 if those of the model's own data
    were zeros and ones.
    """

    name: str = "counts"
    layer: str | None = None
    refuse_if_was_binary: bool = dataclasses.field(default=False, compare=False)

    def describe(self, adata: AnnData) -> CountsRecord:
        """Record of the field in an AnnData, after a check of all values."""
        summary = check_counts(count_matrix(adata, self.layer), adata)
        return CountsRecord(layer=self.layer, integers=summary.integers, binary=summary.binary)

    def check(self, adata: AnnData, record: CountsRecord) -> None:
        """Refuse NaN, infinite and negative counts, and counts above 1 for binary models."""
        summary = check_counts(count_matrix(adata, self.layer), adata)
        if self.refuse_if_was_binary and record.binary and not summary.binary:
            raise DataMismatchError(
                "Expected zeros and ones, which the model was trained on; got counts up to "
                f"{summary.largest:g}. Make them binary: adata.X = (adata.X > 0).astype('float32')."
            )

    def read(self, adata: AnnData, record: CountsRecord, genes: NDArray[np.int64] | None) -> Column:
        """Column of all cells, which shares memory with the matrix of the AnnData if possible."""
        return make_count_column(count_matrix(adata, self.layer), genes)


@final
@dataclass(frozen=True)
class Category(Field):
    """Code of one category for every cell, [cells, 1]; all 0 without a key."""

    name: str
    key: str | None = None

    def describe(self, adata: AnnData) -> CategoryRecord:
        """Categories, in the order of pandas."""
        if self.key is None:
            return CategoryRecord()
        return CategoryRecord(key=self.key, categories=column_categories(adata, self.key))

    def read(
        self, adata: AnnData, record: CategoryRecord, genes: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells."""
        return CategoricalColumn(self.category_codes(adata, record)[:, None])

    def category_codes(self, adata: AnnData, record: CategoryRecord) -> NDArray[np.int64]:
        """Code of each cell, [cells]."""
        if self.key is None:
            return np.zeros(adata.n_obs, dtype=np.int64)
        return category_codes(adata, self.key, record.categories)


@final
@dataclass(frozen=True)
class Labels(Field):
    """Code of the label of every cell, [cells, 1]; the last code for unlabelled cells.

    A cell is unlabelled if its value is missing or the category `unlabeled`. All cells of query
    data are unlabelled if their AnnData has no such column.
    """

    name: str
    key: str
    unlabeled: str

    def describe(self, adata: AnnData) -> CategoryRecord:
        """Labels, in the order of pandas, except for the unlabelled category, which is last."""
        labels = label_categories(adata, self.key, self.unlabeled)
        if len(labels) < 2:
            raise InvalidDataError(
                f"Expected labels in adata.obs['{self.key}']; got no other value than "
                f"'{self.unlabeled}', the unlabeled_category. Give a column in which some cells "
                "have a label."
            )
        return CategoryRecord(key=self.key, categories=labels, unlabeled=labels[-1])

    def read(
        self, adata: AnnData, record: CategoryRecord, genes: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells."""
        return CategoricalColumn(self.category_codes(adata, record)[:, None])

    def category_codes(self, adata: AnnData, record: CategoryRecord) -> NDArray[np.int64]:
        """Code of each cell, [cells]."""
        last = len(record.categories) - 1
        if self.key not in adata.obs:
            return np.full(adata.n_obs, last, dtype=np.int64)
        return category_codes(adata, self.key, record.categories, missing=last)


@final
@dataclass(frozen=True)
class Categories(Field):
    """Codes of several categories for every cell, [cells, keys]; absent without keys."""

    name: str
    keys: tuple[str, ...] = ()

    def describe(self, adata: AnnData) -> CategoriesRecord:
        """Categories of each column, in the order of pandas."""
        categories = tuple(column_categories(adata, key) for key in self.keys)
        return CategoriesRecord(keys=self.keys, categories=categories)

    def read(
        self, adata: AnnData, record: CategoriesRecord, genes: NDArray[np.int64] | None
    ) -> Column | None:
        """Column of all cells; None without keys."""
        return (
            CategoricalColumn(np.stack(self.category_codes(adata, record), axis=1))
            if self.keys
            else None
        )

    def category_codes(self, adata: AnnData, record: CategoriesRecord) -> list[NDArray[np.int64]]:
        """Codes of all cells, a list with [cells] for each key."""
        pairs = zip(self.keys, record.categories, strict=True)
        return [category_codes(adata, key, known) for key, known in pairs]


@final
@dataclass(frozen=True)
class Numbers(Field):
    """Continuous values of several columns for every cell, [cells, keys]; absent without keys.

    With `positive`, values must be above 0, as size factors are.
    """

    name: str
    keys: tuple[str, ...] = ()
    positive: bool = False

    def describe(self, adata: AnnData) -> NumbersRecord:
        """Record of the columns, after a check of all values."""
        self.values(adata)
        return NumbersRecord(keys=self.keys, positive=self.positive)

    def read(
        self, adata: AnnData, record: NumbersRecord, genes: NDArray[np.int64] | None
    ) -> Column | None:
        """Column of all cells; None without keys."""
        return ContinuousColumn(np.stack(self.values(adata), axis=1)) if self.keys else None

    def values(self, adata: AnnData) -> list[NDArray[np.float32]]:
        """Values of all cells, a list with [cells] for each key."""
        return [numeric_column(adata, key, positive=self.positive) for key in self.keys]


def make_count_column(matrix: CountMatrix, genes: NDArray[np.int64] | None) -> Column:
    """Column of counts, of the class that fits the matrix: on disk, dense or sparse."""
    if matrix.on_disk:
        selected = matrix.genes if genes is None else genes
        if genes is not None and matrix.genes is not None:
            selected = matrix.genes[genes]
        return BackedColumn(dataclasses.replace(matrix, genes=selected))
    if isinstance(matrix.values, np.ndarray):
        return DenseColumn(matrix.values, genes)
    return SparseColumn(matrix.values, genes)


def count_fields(keys: CountKeys) -> tuple[Field, ...]:
    """Fields of a count model, one for each key of `CountKeys`, in a fixed order."""
    return (
        Counts("counts", keys.layer),
        Category("batch", keys.batch_key),
        Category("labels", keys.labels_key),
        Numbers("size_factor", (keys.size_factor_key,) if keys.size_factor_key else (), True),
        Categories("categorical", keys.categorical_covariate_keys),
        Numbers("continuous", keys.continuous_covariate_keys),
    )


def label_fields(keys: LabelKeys) -> tuple[Field, ...]:
    """Fields of a model of counts and labels, one for each key of `LabelKeys`, in a fixed order."""
    labels = labels_field(keys)
    return tuple(labels if field.name == labels.name else field for field in count_fields(keys))


def labels_field(keys: LabelKeys) -> Labels:
    """Field of the labels, where some cells are unlabelled."""
    return Labels("labels", keys.labels_key, keys.unlabeled_category)


def field_of(name: str, record: FieldRecord) -> Field:
    """Field that a record describes."""
    match record:
        case CountsRecord():
            return Counts(name, record.layer)
        case CategoryRecord(key=str() as key, unlabeled=unlabeled) if unlabeled is not None:
            return Labels(name, key, str(unlabeled))
        case CategoryRecord():
            return Category(name, record.key)
        case CategoriesRecord():
            return Categories(name, record.keys)
        case NumbersRecord():
            return Numbers(name, record.keys, record.positive)
        case _:
            raise TypeError(f"Expected a record of a known type; got {type(record).__name__}.")
