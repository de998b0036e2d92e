"""Opens the count matrix of an h5ad file or a zarr store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from cellvae.data.storage.matrix_files.array_matrices import CSRMatrix, DenseMatrix, OpenElement
from cellvae.data.storage.matrix_files.stored_matrix import StoredMatrix
from cellvae.errors import (
    CellvaeError,
    InvalidDataError,
    UnknownKeyError,
    did_you_mean,
    quote_names,
)

READ_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)
"""What h5py and zarr raise for files that they cannot read."""
CACHE_BYTES = 2**20
"""Bytes of decompressed chunks that HDF5 keeps of each array of a file; 8 MiB by its version 2.0.

Runs are read in order and once, so that no more than the last chunk is read again.
"""


@final
@dataclass(frozen=True)
class FileElement:
    """Element of an h5ad file or a zarr store, by its path within it; calling it opens it."""

    path: Path
    name: str

    def __call__(self) -> Any:
        """Group or array of the element."""
        return open_root(self.path)[self.name]


def open_root(path: Path, modality: str | None = None) -> Any:
    """Root group of an h5ad file or a zarr store, or the group of a modality, for reading.

    Raises
    ------
    UnknownKeyError
        If there is no such modality.
    FileNotFoundError
        If there is no such file or folder.
    InvalidDataError
        If it is neither an HDF5 file nor a zarr store.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected a file of cells in '{path}'; there is nothing.")
    try:
        root = open_file(path)
    except ImportError as error:
        raise InvalidDataError(
            f"Expected the package zarr to read '{path}'; it is not installed. Install "
            "it with: pip install 'cellvae[zarr]'"
        ) from error
    except READ_ERRORS as error:
        raise InvalidDataError(
            f"Expected an AnnData file (.h5ad or .zarr) in '{path}'; it cannot be read: {error}. "
            "Was it copied or written to its end?"
        ) from error
    if modality is None:
        return root
    if f"mod/{modality}" not in root:
        names = [str(name) for name in root["mod"]] if "mod" in root else []
        close_root(root)
        raise UnknownKeyError(
            f"Expected a modality of '{path}'; got '{modality}'.{did_you_mean(modality, names)} "
            f"The modalities are {quote_names(names, most=10) or 'none'}."
        )
    return root[f"mod/{modality}"]


def open_file(path: Path) -> Any:
    """Root group of a zarr store, or an HDF5 file, for reading."""
    if path.is_dir():
        import zarr

        return zarr.open_group(str(path), mode="r")
    import h5py

    return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)


def open_matrix(
    path: Path, layer: str | None = None, *, raw: bool = False, modality: str | None = None
) -> StoredMatrix:
    """Count matrix of a file: X, a layer, or X of `raw`, of the file or of a modality.

    Raises
    ------
    InvalidDataError
        If there is none, or its cells cannot be read in runs.
    UnknownKeyError
        If there is no such layer.
    """
    root = open_root(path, modality)
    try:
        return find_matrix(root, path, layer, raw, modality)
    except READ_ERRORS as error:
        if isinstance(error, CellvaeError):
            raise
        raise InvalidDataError(
            f"Expected counts as AnnData writes them in '{path}'; they cannot be read: {error}."
        ) from error
    finally:
        close_root(root)


def close_root(root: Any) -> None:
    """Close the file of a group; a zarr store has nothing to close."""
    import h5py

    if isinstance(root, h5py.Group):
        root.file.close()


def find_matrix(
    root: Any, path: Path, layer: str | None, raw: bool, modality: str | None
) -> StoredMatrix:
    """Matrix of an opened file: X, a layer, or X of `raw`."""
    x = "raw/X" if raw else "X"
    name = x if layer is None else f"layers/{layer}"
    whose = "" if modality is None else f"the modality '{modality}' of "
    where = f"{x if layer is None else f'layer {layer!r}'} of {whose}'{path}'"
    if layer is not None:
        layers = [*root["layers"]] if "layers" in root else []
        if layer not in layers:
            raise UnknownKeyError(
                f"Expected a layer of '{path}'; got '{layer}'.{did_you_mean(layer, layers)} The "
                f"layers are {quote_names(layers, most=10) or 'none'}."
            )
    if name not in root:
        raise InvalidDataError(
            f"Expected counts in {where}; got nothing there. Is it an AnnData file? Name the layer "
            "that holds the counts with layer=..."
        )
    inside = name if modality is None else f"mod/{modality}/{name}"
    matrix = matrix_of_element(path, where, inside, root[name])
    if matrix.dtype.kind not in "buif":
        raise InvalidDataError(
            f"Expected real numbers in {where}; got values of type {matrix.dtype}."
        )
    return matrix


def matrix_of_element(
    path: Path, where: str, name: str, element: Any, open_element: OpenElement | None = None
) -> StoredMatrix:
    """Matrix of an opened group or array.

    Parameters
    ----------
    path, where
        File, and the name of the matrix in error messages.
    name
        Path of the element within the file.
    element
        Group or array.
    open_element
        Opens it again for the matrix; None to open the file itself.
    """
    encoding = str(element.attrs.get("encoding-type", ""))
    # Files of AnnData before 0.7 have another name for the format of a sparse matrix.
    legacy = element.attrs.get("h5sparse_format", "")
    legacy = legacy.decode() if isinstance(legacy, bytes) else str(legacy)
    kind = encoding or (f"{legacy}_matrix" if legacy else "array")
    if kind == "csc_matrix":
        raise InvalidDataError(
            f"Expected cells that can be read one by one (CSR or dense) in {where}; got CSC. "
            f"Convert the file once: {conversion(path, name)}."
        )
    opened = open_element or FileElement(path, name)
    if kind == "csr_matrix":
        shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
        n_cells, n_genes = (int(n) for n in np.asarray(shape))
        return CSRMatrix(path, where, (n_cells, n_genes), opened)
    n_dimensions = len(getattr(element, "shape", ()))
    if kind != "array" or n_dimensions != 2:
        raise InvalidDataError(
            f"Expected a CSR matrix or a dense array [cells, genes] in {where}; got "
            f"{kind.replace('_', ' ')} with {n_dimensions} dimensions."
        )
    return DenseMatrix(path, where, (int(element.shape[0]), int(element.shape[1])), opened)


def conversion(path: Path, name: str) -> str:
    """Python statements that make an element of a file CSR, by its path within the file."""
    kind = "zarr" if path.is_dir() else "h5ad"
    read, write = f"anndata.io.read_{kind}('{path}')", f"adata.write_{kind}('{path}')"
    if name.startswith("mod/"):
        modality, name = name.removeprefix("mod/").split("/", 1)
        kind = "zarr" if path.is_dir() else "h5mu"
        read = f"(mdata := mudata.read_{kind}('{path}'))['{modality}']"
        write = f"mdata.write_{kind}('{path}')"
    x = "adata.X" if name == "X" else f"adata.layers[{name.removeprefix('layers/')!r}]"
    change = f"{x} = {x}.tocsr()"
    if name == "raw/X":
        change = "raw = adata.raw.to_adata(); raw.X = raw.X.tocsr(); adata.raw = raw"
    return f"adata = {read}; {change}; {write}"
