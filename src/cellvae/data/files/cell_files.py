"""Cells in files: what models read of an AnnData, without its matrix in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.files.file_tables import FileTables, element_names
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.data.storage.matrix_files.open_matrix import open_matrix
from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


@final
@dataclass(frozen=True)
class FileGenes:
    """Files, and for each the index of its genes among those of all.

    Parameters
    ----------
    paths
        Files.
    genes
        Indices of the genes of each file, -1 for genes that are left out; None if they are the
        same.
    n_genes
        Number of genes of all.
    raw
        Whether X and its genes are those of `raw`.
    modality
        Modality of the files that is meant; None for files of an AnnData.
    """

    paths: tuple[Path, ...]
    genes: tuple[NDArray[np.int32] | None, ...]
    n_genes: int
    raw: bool = False
    modality: str | None = None

    def matrix(self, layer: str | None) -> JoinedMatrix:
        """Matrix of all files, X or a layer."""
        parts = [
            open_matrix(path, layer, raw=self.raw, modality=self.modality) for path in self.paths
        ]
        return JoinedMatrix(parts, self.genes, self.n_genes)


@final
class CellFiles:
    """Cells in one or several files, used in place of an AnnData; :func:`open_cells` makes it.

    `obs`, `var` and `uns` are in memory and can be changed; the files never are. The matrix and
    the layers stay in the files, and models read runs of cells of them. Subsets, such as
    `cells[mask]`, read nothing either, and are independent of the whole, as copies are.

    Parameters
    ----------
    files
        Files, and their genes.
    obs, var
        Tables of all cells and of all genes.

    Attributes
    ----------
    obs, var
        Tables of cells and genes, in memory.
    uns
        Unstructured values, of this object alone: those of the files are not read.
    obsm
        Tables of several columns that all files have, read when they are asked for.
    """

    isbacked = True
    is_view = False
    raw = None

    def __init__(self, files: FileGenes, obs: pd.DataFrame, var: pd.DataFrame) -> None:
        self.files = files
        self.obs = obs
        self.var = var
        self.uns: dict[str, Any] = {}
        self.obsm = FileTables(files.paths, "obsm", obs.index, modality=files.modality)
        self.obsp: dict[str, Any] = {}
        self.varm: dict[str, Any] = {}
        self.varp: dict[str, Any] = {}
        self.cells: NDArray[np.int64] | None = None
        self.genes: NDArray[np.int64] | None = None
        self.opened: dict[str | None, JoinedMatrix] = {}
        found = [element_names(path, "layers", files.modality) for path in files.paths]
        # Layers have the genes of X, not those of raw.
        names = [] if files.raw else found[0]
        self.layer_names = [name for name in names if all(name in each for each in found)]

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return len(self.var)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        return self.n_obs, self.n_vars

    @property
    def obs_names(self) -> pd.Index:
        """Names of the cells."""
        return self.obs.index

    @property
    def var_names(self) -> pd.Index:
        """Names of the genes."""
        return self.var.index

    @property
    def X(self) -> JoinedMatrix:
        """Matrix in the files, which knows its shape and reads cells on request."""
        return self.matrix(None)

    @property
    def layers(self) -> Mapping[str, JoinedMatrix]:
        """Layers that all files have."""
        return Layers(self)

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_obs

    def __repr__(self) -> str:
        n_files = len(self.files.paths)
        text = f"CellFiles with n_obs x n_vars = {self.n_obs} x {self.n_vars} in {n_files} file"
        lines = [text + ("s" if n_files != 1 else "")]
        for name in ("obs", "var", "uns", "obsm", "layers"):
            keys = [*map(repr, getattr(self, name))]
            if keys:
                lines.append(f"    {name}: {', '.join(keys)}")
        return "\n".join(lines)

    def matrix(self, layer: str | None) -> JoinedMatrix:
        """Matrix in the files, X or a layer, opened once."""
        if layer not in self.opened:
            matrix = self.files.matrix(layer).select_genes(self.genes)
            self.opened[layer] = matrix if self.cells is None else matrix.select_cells(self.cells)
        return self.opened[layer]

    def __getitem__(self, selected: Any) -> CellFiles:
        """Subset of the cells, or of the cells and the genes: `cells[mask]`, `cells[:, genes]`.

        Raises
        ------
        InvalidOptionError
            If an index or a mask does not fit.
        UnknownKeyError
            If there is no cell or gene of a name.
        """
        of_cells, of_genes = selected if isinstance(selected, tuple) else (selected, slice(None))
        cells = positions_of(of_cells, self.obs_names, "cells")
        genes = positions_of(of_genes, self.var_names, "genes")
        subset = copy(self)
        subset.obs, subset.var = self.obs.iloc[cells].copy(), self.var.iloc[genes].copy()
        subset.uns = dict(self.uns)
        subset.obsp, subset.varp, subset.varm, subset.opened = {}, {}, {}, {}
        subset.cells = cells if self.cells is None else self.cells[cells]
        subset.genes = genes if self.genes is None else self.genes[genes]
        files = self.files
        subset.obsm = FileTables(
            files.paths, "obsm", subset.obs.index, subset.cells, files.modality
        )
        subset.obsm.in_files = [name for name in self.obsm if name in self.obsm.in_files]
        for name, table in self.obsm.values_set.items():
            rows = table.iloc[cells] if isinstance(table, pd.DataFrame) else table[cells]
            subset.obsm.values_set[name] = rows
        return subset

    def replace_genes(self, genes: NDArray[np.int64], var: pd.DataFrame) -> None:
        """Give these cells other genes, in place; nothing is read.

        Parameters
        ----------
        genes
            Indices of different genes among the present ones, -1 for genes without counts.
        var
            Table of the new genes.
        """
        self.genes = genes if self.genes is None else np.where(genes < 0, -1, self.genes[genes])
        self.var = var
        self.varm, self.varp, self.opened = {}, {}, {}

    def _inplace_subset_var(self, genes: Any) -> None:
        """Keep some genes in place, as AnnData does by this name."""
        positions = positions_of(genes, self.var_names, "genes")
        self.replace_genes(positions, self.var.iloc[positions].copy())

    def copy(self) -> CellFiles:
        """The same cells of the same files, with tables of their own."""
        return self[:]

    def to_memory(self) -> AnnData:
        """AnnData with these cells, X, layers and all tables in memory."""
        adata = self.tables_in_memory()
        adata.X = in_memory(self.X)
        for name, matrix in self.layers.items():
            adata.layers[name] = in_memory(matrix)
        return adata

    def tables_in_memory(self) -> AnnData:
        """AnnData with `obs`, `var`, `obsm` and `uns` of these cells, without X and layers."""
        from anndata import AnnData

        tables = {name: self.obsm[name] for name in self.obsm}
        return AnnData(obs=self.obs.copy(), var=self.var.copy(), uns=dict(self.uns), obsm=tables)


@final
class Layers(Mapping[str, JoinedMatrix]):
    """Layers of cells in files by name."""

    def __init__(self, cells: CellFiles) -> None:
        self.cells = cells

    def __getitem__(self, name: str) -> JoinedMatrix:
        """Layer of this name."""
        names = self.cells.layer_names
        if name not in names:
            raise UnknownKeyError(
                f"Expected a layer of all files; got '{name}'.{did_you_mean(str(name), names)}"
            )
        return self.cells.matrix(name)

    def __iter__(self) -> Iterator[str]:
        """Names of the layers."""
        return iter(self.cells.layer_names)

    def __len__(self) -> int:
        """Count the layers."""
        return len(self.cells.layer_names)


def in_memory(matrix: JoinedMatrix) -> sparse.csr_matrix:
    """All cells of a matrix in files."""
    rows = matrix.read(np.arange(len(matrix)))
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=matrix.shape)


def positions_of(selected: Any, names: pd.Index, what: str) -> NDArray[np.int64]:
    """Indices of what a slice, a mask, integers or names select.

    Raises
    ------
    InvalidOptionError
        If an index is out of range, or a mask has another length.
    UnknownKeyError
        If a name does not exist.
    """
    n = len(names)
    if isinstance(selected, slice) or selected is Ellipsis:
        return np.arange(n, dtype=np.int64)[selected]
    values = np.atleast_1d(np.asarray(selected)).reshape(-1)
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind == "b" or pd.api.types.infer_dtype(values) == "boolean":
        if len(values) != n:
            raise InvalidOptionError(
                f"Expected a mask of the {n:,} {what}; got {len(values):,} values."
            )
        return np.flatnonzero(values.astype(bool)).astype(np.int64)
    if values.dtype.kind in "iu":
        positions = values.astype(np.int64)
        if positions.min() < -n or positions.max() >= n:
            raise InvalidOptionError(
                f"Expected indices of {what} below {n:,}; got {positions.min():,} to "
                f"{positions.max():,}."
            )
        return np.where(positions < 0, positions + n, positions)
    if not names.is_unique:
        raise InvalidOptionError(f"Expected different names to select {what} by name.")
    found = names.get_indexer(pd.Index(values))
    if (found < 0).any():
        missing: Sequence[Any] = [*values[found < 0]]
        raise UnknownKeyError(
            f"Expected names of {what}; got {quote_names(missing)}, which do not exist."
            f"{did_you_mean(str(missing[0]), map(str, names))}"
        )
    return found.astype(np.int64)
