"""Cells that a model reads: an AnnData, cells in files, or a MuData with several AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.data.files.cell_files import CellFiles
from cellvae.data.mudata_adapter import is_mudata
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    UnknownKeyError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData


def check_is_anndata(adata: object) -> None:
    """Raise if a value is not an AnnData.

    Raises
    ------
    InvalidDataError
        If so; the message names its type.
    """
    from anndata import AnnData

    if is_mudata(adata):
        modalities: Any = adata
        names = quote_names([*modalities.mod])
        raise InvalidDataError(
            f"Expected an AnnData; got a MuData of the modalities {names}. Give one of them, such "
            f"as mdata['{next(iter(modalities.mod), 'rna')}'], or call setup_mudata of a model "
            "that reads several."
        )
    if isinstance(adata, CellFiles):
        raise InvalidDataError(
            "Expected an AnnData in memory; got cells in files. Load them or some of them first: "
            "cells[mask].to_memory()."
        )
    if not isinstance(adata, AnnData):
        raise InvalidDataError(f"Expected an AnnData; got {type(adata).__name__}.")


def check_is_table(cells: object) -> None:
    """Raise if a value is neither an AnnData nor cells in files.

    Raises
    ------
    InvalidDataError
        If so; the message names its type.
    """
    if not isinstance(cells, CellFiles):
        check_is_anndata(cells)


def check_is_cells(cells: object) -> None:
    """Raise if a value is neither an AnnData nor cells in files nor a MuData.

    Raises
    ------
    InvalidDataError
        If so; the message names its type.
    """
    if not is_mudata(cells):
        check_is_table(cells)


def table_of(cells: Any, modality: str | None, *, has_features: bool) -> AnnData:
    """AnnData of a modality, with the cells of the whole in its order; the cells without one.

    Parameters
    ----------
    cells
        AnnData or MuData.
    modality
        Name of the modality; None for the `obs` of the whole.
    has_features
        Whether features of the table are read, not only columns of `obs`.

    Raises
    ------
    UnknownKeyError
        If there is no such modality.
    DataMismatchError
        If the modality lacks cells of the whole.
    InvalidDataError
        If features are read and no modality is named.
    """
    if modality is None:
        if has_features:
            check_is_table(cells)
        whole: AnnData = cells
        return whole
    if not is_mudata(cells):
        raise InvalidDataError(
            f"Expected a MuData with the modality '{modality}', with which the model was set up; "
            f"got {type(cells).__name__}."
        )
    if modality not in cells.mod:
        raise UnknownKeyError(
            f"Expected a modality of the MuData; got '{modality}'."
            f"{did_you_mean(modality, cells.mod)} It has {quote_names([*cells.mod])}."
        )
    table: AnnData = cells.mod[modality]
    if table.obs_names.equals(cells.obs_names):
        return table
    missing = cells.obs_names.difference(table.obs_names)
    if len(missing):
        raise DataMismatchError(
            f"Expected all {cells.n_obs:,} cells of the MuData in its modality '{modality}'; got "
            f"{cells.n_obs - len(missing):,}: missing {quote_names([*missing])}. Select the cells "
            "that have all modalities with mudata.pp.intersect_obs(mdata)."
        )
    return table[cells.obs_names]
