"""What was found in the AnnData that a model was made with, and how other data compare to it."""

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
    """Genes, categories and columns that a model was made for.

    Parameters
    ----------
    genes
        Names of the genes, in the order of the model.
    n_cells
        Number of cells that were there.
    fields
        What was found for each field of the model, by its name in a batch.
    keys
        What the user said.
    """

    genes: tuple[str, ...]
    n_cells: int
    fields: Mapping[str, FieldRecord]
    keys: K

    @classmethod
    def of(cls, adata: AnnData, keys: K, fields: Sequence[Field]) -> Registration[K]:
        """Registration of an AnnData, after looking at every value that the model will use.

        Raises
        ------
        UnknownKeyError
            If a column or layer is not there.
        InvalidDataError
            If values are there that no model can be trained on, naming cells and genes.
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
        """Whether all counts were whole numbers."""
        records = self.fields.values()
        return all(record.integers for record in records if isinstance(record, CountsRecord))

    @property
    def binary(self) -> bool:
        """Whether all counts were zeros and ones."""
        records = self.fields.values()
        return all(record.binary for record in records if isinstance(record, CountsRecord))

    def record(self, name: str, kind: type[R]) -> R:
        """What was found for a field, which must be of this kind."""
        record = self.fields.get(name)
        if not isinstance(record, kind):
            known = [name for name, found in self.fields.items() if isinstance(found, kind)]
            raise KeyError(f"Expected one of the fields {quote_names(known)}; got '{name}'.")
        return record

    def categories(self, name: str) -> tuple[Scalar, ...]:
        """Categories of a field in the order of their codes; (0,) if it has no column."""
        return self.record(name, CategoryRecord).categories

    def n_categories(self, name: str) -> int:
        """Number of categories of a field, 1 if it has no column."""
        return len(self.categories(name))

    def n_categories_by_key(self, name: str) -> tuple[int, ...]:
        """Number of categories of each column of a field of several."""
        return tuple(map(len, self.record(name, CategoriesRecord).categories))

    def n_numbers(self, name: str) -> int:
        """Number of columns of a field of numbers."""
        return len(self.record(name, NumbersRecord).keys)

    def gene_order(self, adata: AnnData) -> NDArray[np.int64] | None:
        """Positions of the model's genes in an AnnData, by name; None if they are the same.

        Raises
        ------
        DataMismatchError
            If genes are missing, naming them.
        InvalidDataError
            If a gene of the model is there twice.
        """
        names = adata.var_names
        if len(names) == self.n_genes and list(names) == list(self.genes):
            return None
        wanted = pd.Index(self.genes)
        twice = names[names.duplicated()].intersection(wanted)
        if len(twice):
            raise InvalidDataError(
                f"Expected each gene once; got {quote_names([*twice])} more than once. Make the "
                "names "
                "different with adata.var_names_make_unique()."
            )
        distinct = ~names.duplicated()
        places = np.flatnonzero(distinct)
        found = names[distinct].get_indexer(wanted)
        if (found < 0).any():
            raise DataMismatchError(self.missing_genes(adata, [*wanted[found < 0]]))
        logger.info(
            "Matched the %s genes of the model by name: the AnnData has %s.",
            f"{self.n_genes:,}",
            "them in another order" if len(names) == self.n_genes else f"{len(names):,}",
        )
        return places[found].astype(np.int64)

    def missing_genes(self, adata: AnnData, missing: list[str]) -> str:
        """Message for an AnnData that lacks genes."""
        close = did_you_mean(missing[0], map(str, adata.var_names))
        return (
            f"Expected the {self.n_genes:,} genes the model was trained on; got "
            f"{self.n_genes - len(missing):,}: missing {quote_names(missing)}.{close} Rename "
            "the genes "
            "if they are there under other names, or train a model on the genes that both have."
        )

    def read(
        self,
        adata: AnnData,
        fields: Sequence[Field],
        batch_type: Callable[..., B],
        *,
        check_counts: bool = True,
    ) -> ColumnRows[B]:
        """Rows of all cells of an AnnData, with the genes and codes of the model.

        Parameters
        ----------
        adata
            The data of the model or others; genes are matched by name, categories by value.
        fields
            What to read; the same names as when the model was made.
        batch_type
            NamedTuple of a batch; fields that the user did not name keep its defaults.
        check_counts
            Whether to look at every count; the model's own data have been looked at.

        Raises
        ------
        DataMismatchError
            If genes are missing or categories unknown.
        UnknownKeyError
            If a column or layer is not there.
        InvalidDataError
            If values are there that no model can use.
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
        """Values for JSON."""
        return {
            "genes": list(self.genes),
            "n_cells": self.n_cells,
            "fields": {name: record.to_json() for name, record in self.fields.items()},
            "keys": self.keys.to_json(),
        }

    @classmethod
    def from_json(cls, values: object, keys_type: type[K]) -> Registration[K]:
        """Registration from the values of its JSON object.

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
        words = entries.json_object("keys").unread
        entries.refuse_unread()
        if not genes:
            raise FileFormatError("Expected at least one gene in registration.genes; got none.")
        try:
            keys = keys_from_kwargs(words, keys_type)
        except InvalidOptionError as error:
            raise FileFormatError(f"Cannot read registration.keys: {error}") from error
        return cls(genes=genes, n_cells=n_cells, fields=fields, keys=keys)
