"""Compact copy of what a model reads of each cell, to find cells whose values change later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.data.storage.checksums import cell_checksums
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows, ContinuousColumn
from cellvae.errors import FileFormatError

if TYPE_CHECKING:
    from cellvae.data.setup.registration import Registration

CODE_TYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Dtypes for codes, from small to large."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CellValues:
    """Values of one column of the data for every cell.

    Parameters
    ----------
    where
        Where the values are in the AnnData, such as `"obs['donor']"`.
    values
        Codes of categories in the smallest dtype that holds them, continuous values in single
        precision, or checksums of counts, [cells].
    categories
        JSON values of the categories in the order of their codes; None for continuous values and
        checksums.
    """

    where: str
    values: NDArray[Any]
    categories: tuple[Any, ...] | None = None

    def to_values(self) -> dict[str, Any]:
        """Tensors and JSON values for a file."""
        values = self.values
        if values.dtype == np.uint32:
            values = values.view(np.int32)  # torch has few operations for unsigned dtypes
        categories = None if self.categories is None else list(self.categories)
        return {"values": torch.from_numpy(values), "categories": categories, "where": self.where}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CellValues:
        """Column from the values of a file.

        Raises
        ------
        FileFormatError
            If they are not the values of a column.
        """
        tensor, categories, where = values["values"], values["categories"], values["where"]
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 1:
            raise FileFormatError(f"Expected a one-dimensional tensor for {where}; got others.")
        array = tensor.numpy()
        is_checksum = categories is None and array.dtype == np.int32
        return cls(
            where=where,
            values=array.view(np.uint32) if is_checksum else array,
            categories=None if categories is None else tuple(categories),
        )

    def differing_cells(self, other: CellValues) -> NDArray[np.int64]:
        """Indices of the cells whose values differ from another column of as many cells."""
        own_values = self.values
        if self.categories is not None and other.categories is not None:
            other_codes = {json.dumps(value): code for code, value in enumerate(other.categories)}
            codes = [other_codes.get(json.dumps(value), -1) for value in self.categories]
            own_values = np.array([*codes, -1], dtype=np.int64)[own_values]
        return np.flatnonzero(own_values != other.values)

    def describe_value(self, cell: int) -> str:
        """Value of a cell for a message; empty for a checksum."""
        value = self.values[cell]
        if self.categories is not None:
            return repr(self.categories[int(value)])
        return "" if self.values.dtype == np.uint32 else f"{float(value):.6g}"


def read_cell_values(
    registration: Registration[Any], rows: ColumnRows[Any]
) -> dict[str, CellValues]:
    """Values of each column that a model reads, by the names of field and column."""
    cell_values = {}
    for field, column in rows.columns.items():
        record = registration.fields.get(field)
        keys = [] if record is None else record.obs_columns()
        if keys and isinstance(column, CategoricalColumn | ContinuousColumn):
            values = column.codes if isinstance(column, CategoricalColumn) else column.values
            for j, (key, categories) in enumerate(keys):
                cell_values[f"{field}.{key}"] = CellValues(
                    where=f"obs['{key}']",
                    values=to_smallest_integers(values[:, j]),
                    categories=None if categories is None else tuple(categories),
                )
        else:
            where = f"the field '{field}'" if record is None else record.location
            cell_values[field] = CellValues(where=where, values=cell_checksums(column))
    return cell_values


def to_smallest_integers(values: torch.Tensor) -> NDArray[Any]:
    """Codes in the smallest dtype that holds them; continuous values are not converted."""
    if not values.is_floating_point():
        largest = int(values.max()) if len(values) else 0
        values = values.to(next(t for t in CODE_TYPES if largest <= torch.iinfo(t).max))
    array: NDArray[Any] = values.contiguous().numpy()
    return array


def differing_columns(
    saved: Mapping[str, CellValues], now: Mapping[str, CellValues], names: Sequence[str]
) -> list[str]:
    """A line of text for each column that differs: number of cells, the first one, its values.

    Columns that only one side has are skipped, and so are columns of different lengths.

    Parameters
    ----------
    saved, now
        Columns of the saved run and of the present data, by name.
    names
        Names of the cells.
    """
    lines = []
    for name in (name for name in saved if name in now):
        before, after = saved[name], now[name]
        if not len(before.values) == len(after.values) == len(names):
            continue
        cells = before.differing_cells(after)
        if len(cells):
            first = int(cells[0])
            values = before.describe_value(first), after.describe_value(first)
            change = f" ({values[0]} in the saved run, {values[1]} now)" if any(values) else ""
            lines.append(
                f"{name.split('.')[0]}, read from {after.where}: {len(cells):,} of {len(names):,} "
                f"cells differ, the first is '{names[first]}'{change}"
            )
    return lines
