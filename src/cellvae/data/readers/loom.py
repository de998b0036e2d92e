"""Reader of loom files: HDF5 with one row for each gene and one column for each cell."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse as scipy_sparse

from cellvae.errors import (
    InvalidDataError,
    InvalidOptionError,
    UnknownKeyError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

EMPTY: Mapping[str, Iterable[str]] = MappingProxyType({})
VALUES_AT_ONCE = 2**24
"""Values read at a time, 128 MB in double precision."""


def read_loom(
    filename: str | Path,
    *,
    sparse: bool = True,
    cleanup: bool = False,
    X_name: str = "spliced",
    obs_names: str = "CellID",
    obsm_names: Mapping[str, Iterable[str]] | None = None,
    var_names: str = "Gene",
    varm_names: Mapping[str, Iterable[str]] | None = None,
    dtype: str = "float32",
    obsm_mapping: Mapping[str, Iterable[str]] = EMPTY,
    varm_mapping: Mapping[str, Iterable[str]] = EMPTY,
    validate: bool = True,
) -> AnnData:
    """AnnData from a loom file, as from `anndata.io.read_loom`, without the package loompy.

    Parameters
    ----------
    filename
        Path of the file.
    sparse
        Whether matrices are sparse. They are read in parts, so that none is ever dense as a whole.
    cleanup
        Whether columns with a single value are moved to `uns["loom-obs"]` and `uns["loom-var"]`.
    X_name
        Layer that `X` is read from; the main matrix if there is no such layer, or for `""`. With a
        layer in `X`, the main matrix is `layers["matrix"]`.
    obs_names, var_names
        Attributes with the names of cells and genes; they are numbered if there are none.
    dtype
        Type of the values of `X`.
    obsm_mapping, varm_mapping
        Arrays of `obsm` and `varm`, with the attributes that each consists of:
        `{"X_umap": ["umap_1", "umap_2"]}`.
    obsm_names, varm_names
        Old names of `obsm_mapping` and `varm_mapping`.
    validate
        Has no effect: only what is read is checked.

    Returns
    -------
    AnnData
        The cells; attributes with one value per cell or gene are columns of `obs` and `var`, others
        arrays of `obsm` and `varm`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    InvalidDataError
        If it is not a loom file.
    InvalidOptionError
        If a mapping is passed under both names.
    UnknownKeyError
        If an attribute of `obsm_mapping` or `varm_mapping` does not exist.

    References
    ----------
    Specification of the format: https://linnarssonlab.org/loompy/format/
    """
    import h5py
    from anndata import AnnData

    obsm_attributes = resolve_mapping("obsm", obsm_mapping, obsm_names)
    varm_attributes = resolve_mapping("varm", varm_mapping, varm_names)
    path = Path(filename)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a loom file at '{path}'; there is none.")
    if not h5py.is_hdf5(path):
        raise InvalidDataError(f"Expected a loom file (HDF5) in '{path}'; it is none.")
    with h5py.File(path, "r") as file:
        missing = [part for part in ("matrix", "row_attrs", "col_attrs") if part not in file]
        if missing:
            raise InvalidDataError(f"Expected {quote_names(missing)} in the loom file '{path}'.")
        layers = dict(file["layers"].items()) if "layers" in file else {}
        values = layers.get(X_name, file["matrix"])
        counts = read_matrix(values, sparse).astype(dtype, copy=False)
        others = {name: read_matrix(layer, sparse) for name, layer in layers.items()}
        if X_name in layers:
            others["matrix"] = read_matrix(file["matrix"], sparse)
        obs, obsm = read_attributes(file["col_attrs"], obs_names, obsm_attributes)
        var, varm = read_attributes(file["row_attrs"], var_names, varm_attributes)
    uns: dict[str, Any] = {}
    if cleanup:
        for key, table in (("loom-obs", obs), ("loom-var", var)):
            single = {name: table.pop(name).iloc[0] for name in constant_columns(table)}
            uns |= {key: single} if single else {}
    return AnnData(counts, obs=obs, var=var, layers=others, obsm=obsm, varm=varm, uns=uns)


def resolve_mapping(
    name: str, mapping: Mapping[str, Iterable[str]], old: Mapping[str, Iterable[str]] | None
) -> Mapping[str, Iterable[str]]:
    """Mapping that is passed under its name or its old name."""
    if mapping and old:
        raise InvalidOptionError(
            f"Expected {name}_mapping or its old name, {name}_names; got both. Pass {name}_mapping."
        )
    return mapping or old or {}


def read_matrix(values: Any, sparse: bool) -> Any:
    """Matrix of the file, transposed to [cells, genes]."""
    if not sparse:
        return values[...].T
    n_genes, n_cells = values.shape
    n_at_once = max(VALUES_AT_ONCE // max(n_genes, 1), 1)
    parts = [
        scipy_sparse.csr_matrix(values[:, first : first + n_at_once].T)
        for first in range(0, n_cells, n_at_once)
    ]
    if not parts:
        return scipy_sparse.csr_matrix((0, n_genes), dtype=values.dtype)
    return scipy_sparse.vstack(parts, format="csr")


def read_attributes(
    group: Any, index: str, mapping: Mapping[str, Iterable[str]]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Table of the attributes with one value per row, and arrays of the others."""
    attributes = {name: decode_values(attribute[...]) for name, attribute in group.items()}
    arrays = {}
    for key, names in mapping.items():
        columns = []
        for name in names:
            if name not in attributes:
                raise UnknownKeyError(
                    f"Expected an attribute of the loom file for '{key}'; got '{name}'."
                    f"{did_you_mean(name, attributes)} It has "
                    f"{quote_names([*attributes]) or 'none'}."
                )
            columns.append(attributes.pop(name))
        arrays[key] = np.array(columns).T
    table = {}
    n = group[next(iter(group))].shape[0] if len(group) else 0
    for name, values in attributes.items():
        if values.ndim > 1 and values.shape[1] > 1:
            arrays[name] = values
        else:
            table[name] = values.reshape(len(values))
    frame = pd.DataFrame(table, index=pd.RangeIndex(n))
    if index in frame:
        return frame.set_index(index), arrays
    frame.index = frame.index.astype(str)
    return frame, arrays


def decode_values(values: np.ndarray) -> np.ndarray:
    """Strings without the XML escapes of the format; other values are returned unchanged."""
    if values.dtype.kind not in "SO":
        return values
    strings = [
        html.unescape(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
        for value in values.ravel()
    ]
    decoded = np.empty(len(strings), dtype=object)
    decoded[:] = strings
    return decoded.reshape(values.shape)


def constant_columns(table: pd.DataFrame) -> list[str]:
    """Names of the columns with a single value."""
    return [name for name in table.columns if table[name].nunique(dropna=False) == 1]
