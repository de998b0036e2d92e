"""Registration: genes, categories and columns of the AnnData that a model was created with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import numpy as np
import pandas as pd

from cellvae.core.json_object import JsonObject
from cellvae.core.log import logger
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.checks import check_names
from cellvae.data.setup.fields import Counts, Field
from cellvae.data.setup.keys import K, keys_from_kwargs
from cellvae.data.setup.records import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    FieldRecord,
    NumbersRecord,
    record_from_json,
)
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import (
    DataMismatchError,
    FileFormatError,
    InvalidDataError,
    InvalidOptionError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.contracts import B


R = TypeVar("R", bound=FieldRecord)


@final
@dataclass(frozen=True, kw_only=True)
class Registration(Generic[K]):
    """Genes, categories and columns of the AnnData that a model was created with.

    Parameters
    ----------
    genes
        Names of the genes, in the order of the model.
    n_cells
        Number of cells of the AnnData.
    fields
        Record of each field of the model, by its name in a batch.
    keys
        Keys that the user passed to `setup_anndata`.
    """

    genes: tuple[str, ...]
    n_cells: int
    fields: Mapping[str, FieldRecord]
    keys: K

    @classmethod
    def of(cls, adata: AnnData, keys: K, fields: Sequence[Field]) -> Registration[K]:
        """Registration of an AnnData, after a check of all values that the model will use.

        Raises
        ------
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If there are values that no model can be trained on; the message names cells and genes.
        """
        check_names(adata)
        return cls(
            genes=tuple(map(str, adata.var_names)),
            n_cells=int(adata.n_obs),
            fields={field.name: field.describe(adata) for field in fields},
            keys=keys,
        )

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def integers(self) -> bool:
        """Whether all counts were integers."""
        records = self.fields.values()
        return all(record.integers for record in records if isinstance(record, CountsRecord))

    @property
    def binary(self) -> bool:
        """Whether all counts were zeros and ones."""
        records = self.fields.values()
        return all(record.binary for record in records if isinstance(record, CountsRecord))

    def record(self, name: str, record_type: type[R]) -> R:
        """Record of a field, which must be of this type."""
        record = self.fields.get(name)
        if not isinstance(record, record_type):
            known = [key for key, value in self.fields.items() if isinstance(value, record_type)]
            raise KeyError(f"Expected one of the fields {quote_names(known)}; got '{name}'.")
        return record

    def categories(self, name: str) -> tuple[Scalar, ...]:
        """Categories of a field in the order of their codes; (0,) without a column."""
        return self.record(name, CategoryRecord).categories

    def n_categories(self, name: str) -> int:
        """Number of categories of a field; 1 without a column."""
        return len(self.categories(name))

    def n_categories_by_key(self, name: str) -> tuple[int, ...]:
        """Number of categories of each column of a field with several columns."""
        return tuple(map(len, self.record(name, CategoriesRecord).categories))

    def n_numbers(self, name: str) -> int:
        """Number of columns of a field of continuous values."""
        return len(self.record(name, NumbersRecord).keys)

    def gene_order(self, adata: AnnData) -> NDArray[np.int64] | None:
        """Indices of the model's genes in an AnnData, by name; None if its genes are the same.

        Raises
        ------
        DataMismatchError
            If genes are missing; the message names them.
        InvalidDataError
            If a gene of the model occurs twice.
        """
        names = adata.var_names
        if len(names) == self.n_genes and list(names) == list(self.genes):
            return None
        genes = pd.Index(self.genes)
        repeated = names[names.duplicated()].intersection(genes)
        if len(repeated):
            raise InvalidDataError(
                f"Expected each gene once; got {quote_names([*repeated])} more than once. Make the "
                "names unique with adata.var_names_make_unique()."
            )
        is_first = ~names.duplicated()
        found = names[is_first].get_indexer(genes)
        if (found < 0).any():
            raise DataMismatchError(self.missing_genes(adata, [*genes[found < 0]]))
        logger.info(
            "Matched the %s genes of the model by name: the AnnData has %s.",
            f"{self.n_genes:,}",
            "them in another order" if len(names) == self.n_genes else f"{len(names):,}",
        )
        return np.flatnonzero(is_first)[found].astype(np.int64)

    def missing_genes(self, adata: AnnData, missing: list[str]) -> str:
        """Error message for an AnnData that lacks genes of the model."""
        close = did_you_mean(missing[0], map(str, adata.var_names))
        return (
            f"Expected the {self.n_genes:,} genes the model was trained on; got "
            f"{self.n_genes - len(missing):,}: missing {quote_names(missing)}.{close} Rename "
            "the genes if they have other names there, or train a model on the genes in common."
        )

    def read(
        self,
        adata: AnnData,
        fields: Sequence[Field],
        batch_type: Callable[..., B],
        *,
        check_counts: bool = True,
    ) -> ColumnRows[B]:
        """Rows of all cells of an AnnData, with the genes and the codes of the model.

        Parameters
        ----------
        adata
            The model's own data or others; genes are matched by name, categories by value.
        fields
            Fields to read, with the names that they had when the model was created.
        batch_type
            NamedTuple class of a batch; fields without a key keep its defaults.
        check_counts
            Whether to check all counts; those of the model's own data were checked before.

        Raises
        ------
        DataMismatchError
            If genes are missing or categories unknown.
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If there are values that no model can use.
        """
        genes = self.gene_order(adata)
        columns = {}
        for field in fields:
            record: Any = self.fields[field.name]
            if check_counts and isinstance(field, Counts):
                field.check(adata, record)
            column = field.read(adata, record, genes)
            if column is not None:
                columns[field.name] = column
        return ColumnRows(columns, batch_type)

    def to_json(self) -> dict[str, object]:
        """JSON object."""
        return {
            "genes": list(self.genes),
            "n_cells": self.n_cells,
            "fields": {name: record.to_json() for name, record in self.fields.items()},
            "keys": self.keys.to_json(),
        }

    @classmethod
    def from_json(cls, values: object, keys_type: type[K]) -> Registration[K]:
        """Registration from its JSON object.

        Raises
        ------
        FileFormatError
            If an entry is unknown, missing or of another type than it should be.
        """
        entries = JsonObject(values, "registration")
        genes = entries.list_of_strings("genes")
        n_cells = entries.integer("n_cells", minimum=1)
        records = entries.json_object("fields").unread
        fields = {
            name: record_from_json(record, f"registration.fields.{name}")
            for name, record in records.items()
        }
        kwargs = entries.json_object("keys").unread
        entries.refuse_unread()
        if not genes:
            raise FileFormatError("Expected at least one gene in registration.genes; got none.")
        try:
            keys = keys_from_kwargs(kwargs, keys_type)
        except InvalidOptionError as error:
            raise FileFormatError(f"Cannot read registration.keys: {error}") from error
        return cls(genes=genes, n_cells=n_cells, fields=fields, keys=keys)
