"""Cells of a job: an AnnData or a MuData, how a model is set up for them, and what it reads."""

from __future__ import annotations

import glob
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellvae.data.mudata_adapter import is_mudata
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean, quote_names

SUFFIXES = (".h5ad", ".h5mu")
"""Ends of the names of files of cells."""
CELLS_PER_CHUNK = 4096


def check_counts_file(counts: Path) -> None:
    """Check that a file of counts exists, or files that fit a pattern.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InvalidOptionError
        If its name does not end in `.h5ad`, `.h5mu` or `.zarr`.
    """
    paths = matching_files(counts)
    if not paths:
        raise FileNotFoundError(f"No such file: '{counts}'.")
    several = len(paths) > 1 or not counts.exists()
    for path in paths:
        is_file = path.suffix in SUFFIXES and not path.is_dir() and path.exists()
        is_mudata_file = path.suffix == ".h5mu"
        if not (is_file or is_zarr(path)) or (several and is_mudata_file):
            kinds = ".h5ad or .zarr" if several else ".h5ad, .h5mu or .zarr"
            raise InvalidOptionError(
                f"Expected a file of counts that ends in {kinds}; got '{path}'."
            )


def matching_files(counts: Path) -> list[Path]:
    """The file itself if it exists, otherwise the files that fit the pattern, by name."""
    if counts.exists():
        return [counts]
    # A pattern may be absolute, which Path.glob refuses.
    found = glob.glob(str(counts.expanduser()), recursive=True)  # noqa: PTH207
    return sorted(map(Path, found))


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder of zarr."""
    return path.is_dir() and path.suffix == ".zarr"


def read_counts(counts: Path) -> Any:
    """Cells of a file in memory; those of a pattern, or of a zarr store, stay in their files."""
    from cellvae.data import open_cells
    from cellvae.data.files.h5mu import read_cells

    if counts.exists() and not is_zarr(counts):
        return read_cells(counts)
    return open_cells(matching_files(counts))


def setup_name(cls: Any, suffix: str) -> str:
    """Name of the method that sets a model up for cells in a file with this end of its name.

    Raises
    ------
    InvalidOptionError
        If the model reads no MuData.
    """
    if suffix != ".h5mu":
        return "setup_anndata"
    if getattr(cls, "setup_mudata", None) is None:
        raise InvalidOptionError(
            f"Expected a file of an AnnData (.h5ad) for {cls.__name__}, which reads one modality; "
            "got a MuData (.h5mu). Write one modality to a file: "
            "mdata['rna'].write_h5ad('rna.h5ad')."
        )
    return "setup_mudata"


def set_up(cls: Any, cells: Any, setup: Mapping[str, Any]) -> None:
    """Set a model up for an AnnData or a MuData.

    Columns of modalities are copied to the `obs` of the whole, for figures.

    Raises
    ------
    InvalidOptionError
        If nothing says what the modalities of a MuData are.
    """
    if not is_mudata(cells):
        cls.setup_anndata(cells, **setup)
        return
    if not setup.get("modalities"):
        raise InvalidOptionError(
            f"Expected --modalities for a MuData; got none for {quote_names([*cells.mod])}. Give "
            f"for example --modalities '{json.dumps(guess_modalities(cls, [*cells.mod]))}'."
        )
    cls.setup_mudata(cells, **setup)
    for column, values in setup_columns(cells, setup).items():
        if column not in cells.obs:
            cells.obs[column] = values


def guess_modalities(cls: Any, modalities: Sequence[str]) -> dict[str, str]:
    """Modality of each table that a model reads, by the beginning of its name; an example."""
    tables = [n for n in inspect.signature(cls.setup_mudata).parameters if n.endswith("_layer")]
    kinds = {name: name.removesuffix("_layer") for name in tables}
    return {
        name: next((m for m in modalities if m.lower()[:3] == kind[:3]), kind)
        for name, kind in kinds.items()
    }


def setup_columns(cells: Any, setup: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that a model reads, by name, for the cells in their order.

    Raises
    ------
    UnknownKeyError
        If a modality or column does not exist.
    """
    modalities = setup.get("modalities") or {}
    columns = {}
    for name, keys in setup.items():
        if not name.endswith(("_key", "_keys")) or name.endswith(("_obsm_key", "_uns_key")):
            continue
        modality = modalities.get(name)
        if modality is not None and modality not in cells.mod:
            raise UnknownKeyError(
                f"Expected a modality of the MuData; got '{modality}'."
                f"{did_you_mean(modality, cells.mod)}"
            )
        table = cells if modality is None else cells.mod[modality]
        for key in [keys] if isinstance(keys, str) else keys:
            if key not in table.obs:
                raise UnknownKeyError(
                    f"Expected a column of obs; got '{key}'.{did_you_mean(key, table.obs)}"
                )
            values = table.obs[key]
            columns[key] = values if modality is None else values.reindex(cells.obs_names)
    return columns


def describe_data(cells: Any, setup: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the parts of the data that a model reads, independent of their storage.

    Parameters
    ----------
    cells
        AnnData or MuData.
    setup
        Keyword arguments of `setup_anndata` or `setup_mudata`.
    """
    digests = (
        describe_modalities(cells, setup) if is_mudata(cells) else describe_counts(cells, setup)
    )
    for name, key in setup.items():
        if name.endswith("_obsm_key") and key in cells.obsm:
            digests[f"values of obsm['{key}']"] = counts_digest(np.asarray(cells.obsm[key]))
    for column, values in setup_columns(cells, setup).items():
        digests[f"values of obs['{column}']"] = text_digest(values)
    return digests


def describe_counts(adata: Any, setup: Mapping[str, Any]) -> dict[str, str]:
    """Digests of genes, cells and counts of an AnnData."""
    layer = setup.get("layer")
    return {
        "genes": text_digest(adata.var_names),
        "cells": text_digest(adata.obs_names),
        "counts": counts_digest(adata.X if layer is None else adata.layers[layer]),
    }


def describe_modalities(mdata: Any, setup: Mapping[str, Any]) -> dict[str, str]:
    """Digests of features, cells and counts of the modalities of a MuData that a model reads."""
    digests = {"cells": text_digest(mdata.obs_names)}
    for name, modality in (setup.get("modalities") or {}).items():
        if not name.endswith("_layer") or modality not in mdata.mod:
            continue
        table, layer = mdata.mod[modality], setup.get(name)
        digests[f"features of {modality}"] = text_digest(table.var_names)
        digests[f"cells of {modality}"] = text_digest(table.obs_names)
        counts = table.X if layer is None else table.layers[layer]
        digests[f"counts of {modality}"] = counts_digest(counts)
    return digests


def counts_digest(counts: Any) -> str:
    """Digest of sums over cells, sums over genes, and weighted sums over genes.

    Sums of integers are exact in double precision, so that neither dtype nor memory order matters.
    """
    weights = np.arange(1, counts.shape[1] + 1, dtype=np.float64)
    if isinstance(counts, JoinedMatrix):
        parts = [sums_of_cells(part, weights) for part in counts.iter_csr(CELLS_PER_CHUNK)]
        by_gene = np.sum([part[0] for part in parts], axis=0)
        by_cell = [np.concatenate([part[i] for part in parts]) for i in (1, 2)]
        return digest(b"".join(values.tobytes() for values in (by_gene, *by_cell)))
    sums = [counts.sum(axis=0, dtype=np.float64), counts.sum(axis=1, dtype=np.float64)]
    # The product of a dense matrix copies it in double precision, so it is computed in chunks.
    n_rows = CELLS_PER_CHUNK if isinstance(counts, np.ndarray) else max(1, counts.shape[0])
    sums += [counts[i : i + n_rows] @ weights for i in range(0, counts.shape[0], n_rows)]
    return digest(b"".join(np.asarray(values, dtype=np.float64).tobytes() for values in sums))


def sums_of_cells(counts: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Sums of some cells over cells, over genes, and weighted over genes."""
    by_gene, by_cell = (
        np.asarray(counts.sum(axis=axis, dtype=np.float64)).ravel() for axis in (0, 1)
    )
    return by_gene, by_cell, counts @ weights


def text_digest(values: Any) -> str:
    """Digest of values as strings."""
    return digest("\n".join(map(str, values)).encode())


def digest(content: bytes) -> str:
    """Digest of bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
