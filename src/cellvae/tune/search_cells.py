"""Cells of a search on their way to the processes of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.data.files.cell_files import CellFiles
from cellvae.data.mudata_adapter import import_mudata, is_mudata, keep_columns
from cellvae.data.setup.keys import store_keys, stored_keys
from cellvae.data.setup.tables.cells import check_is_cells
from cellvae.errors import InvalidOptionError, NotSetUpError

if TYPE_CHECKING:
    from cellvae.estimator.model import Model


@dataclass(frozen=True, kw_only=True)
class SharedCells:
    """Cells that were set up, in a form that other processes can have.

    Ray stores `adata` once on each node, and all trials there read the same memory. Of cells in a
    file only the tables are stored; a MuData is written to a file, which each trial reads.

    Parameters
    ----------
    adata
        Cells in memory, or those of `open_cells`; None for cells in `path`.
    path
        File of a backed AnnData or of a MuData.
    keys
        Keys of the set-up, for cells in `path`.
    tables
        `obs`, `var` and `uns` of a backed AnnData, as they are in memory.
    """

    adata: Any = None
    path: Path | None = None
    keys: Any = None
    tables: dict[str, Any] | None = None

    @classmethod
    def of(cls, adata: Any, model_class: type[Model], folder: Path) -> SharedCells:
        """Cells for the trials of a search.

        Parameters
        ----------
        adata
            AnnData, MuData or cells in files, set up for the model.
        model_class
            Class of the models.
        folder
            Folder of the search, in which a MuData is written.

        Raises
        ------
        NotSetUpError
            If they were not set up.
        InvalidOptionError
            If they are a part of a backed AnnData.
        """
        check_is_cells(adata)
        keys = stored_keys(adata, model_class.__name__, model_class.Keys)
        if keys is None:
            raise NotSetUpError(
                f"Expected cells that were set up for {model_class.__name__}; these were not. "
                f"Call {model_class.__name__}.setup_anndata(adata, ...) first."
            )
        if isinstance(adata, CellFiles):
            return cls(adata=adata)
        if is_mudata(adata):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "cells.h5mu"
            with keep_columns(import_mudata()):
                adata.write(path)
            return cls(path=path, keys=keys)
        if not adata.isbacked:
            return cls(adata=adata.copy() if adata.is_view else adata)
        if adata.is_view:
            raise InvalidOptionError(
                "Expected whole cells for a search; got a part of a backed AnnData. Give the part "
                "in memory, adata.to_memory(), or cellvae.data.open_cells(path)[cells]."
            )
        tables = {"obs": adata.obs, "var": adata.var, "uns": {**adata.uns}}
        return cls(path=Path(adata.filename).resolve(), keys=keys, tables=tables)

    def open(self, model_class: type[Model]) -> Any:
        """The cells, set up, in this process."""
        if self.path is None:
            return self.adata
        if self.tables is None:
            mudata = import_mudata()
            with keep_columns(mudata):
                cells = mudata.read_h5mu(self.path)
        else:
            import anndata

            cells = anndata.read_h5ad(self.path, backed="r")
            for name, table in self.tables.items():
                setattr(cells, name, table)
        store_keys(cells, model_class.__name__, self.keys)
        return cells
