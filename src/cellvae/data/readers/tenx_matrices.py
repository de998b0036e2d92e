"""Readers of the output folders of Cell Ranger ATAC and Cell Ranger ARC."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.errors import InvalidDataError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


def read_10x_atac(base_path: str | Path) -> AnnData:
    """Chromatin accessibility from an output folder of Cell Ranger ATAC.

    Parameters
    ----------
    base_path
        Folder with `matrix.mtx`, `peaks.bed` and `barcodes.tsv`, each optionally compressed
        (`.gz`).

    Returns
    -------
    AnnData
        Counts, CSR in single precision, [cells, peaks]; peaks named `chr1:565107-565550` with
        `chr`, `start` and `end` in `var`, and `batch_id` in `obs`, the suffix of the barcode.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    InvalidDataError
        If the files have different numbers of cells or features.
    """
    folder = Path(base_path)
    peaks = pd.read_csv(find_file(folder, "peaks.bed"), sep="\t", header=None, comment="#")
    peaks = peaks.rename(columns={0: "chr", 1: "start", 2: "end"})
    ranges = peaks["start"].astype(str) + "-" + peaks["end"].astype(str)
    peaks.index = pd.Index(peaks["chr"].astype(str) + ":" + ranges).rename(None)
    return read_folder(folder, peaks)


def read_10x_multiome(base_path: str | Path) -> AnnData:
    """Gene expression and chromatin accessibility from an output folder of Cell Ranger ARC.

    Parameters
    ----------
    base_path
        Folder with `matrix.mtx`, `features.tsv` and `barcodes.tsv`, each optionally compressed
        (`.gz`).

    Returns
    -------
    AnnData
        Counts, CSR in single precision, [cells, genes and peaks]; `var` has `ID`, `modality`
        (`Gene Expression` or `Peaks`), `chr`, `start` and `end`; `obs` has `batch_id`, the
        numeric suffix of the barcode. Names of genes may repeat: `adata.var_names_make_unique()`.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    InvalidDataError
        If the files have different numbers of cells or features.
    """
    folder = Path(base_path)
    # A gene may be called NA; only positions may be missing.
    features = pd.read_csv(
        find_file(folder, "features.tsv"),
        sep="\t",
        header=None,
        index_col=1,
        keep_default_na=False,
        na_values={column: [""] for column in (3, 4, 5)},
    )
    features.index = features.index.astype(str).rename(None)
    names = {0: "ID", 2: "modality", 3: "chr", 4: "start", 5: "end"}
    return read_folder(folder, features.rename(columns=names))


def read_folder(folder: Path, features: pd.DataFrame) -> AnnData:
    """Counts of a folder, with its barcodes and the given features."""
    from anndata import AnnData
    from scipy.io import mmread

    path = find_file(folder, "matrix.mtx")
    try:
        with warnings.catch_warnings():
            # scipy 1.20 returns another class; csr_matrix() accepts both.
            warnings.filterwarnings("ignore", ".*`spmatrix`", DeprecationWarning)
            counts = sparse.csr_matrix(mmread(path).T, dtype=np.float32)
    except ValueError as error:
        raise InvalidDataError(
            f"Expected a matrix of Matrix Market in '{path}'; it cannot be read: {error}"
        ) from error
    barcodes = pd.read_csv(find_file(folder, "barcodes.tsv"), sep="-", header=None, dtype={0: str})
    barcodes = barcodes.rename(columns={0: "barcode", 1: "batch_id"}).set_index("barcode")
    if counts.shape != (len(barcodes), len(features)):
        raise InvalidDataError(
            f"Expected {len(barcodes):,} cells and {len(features):,} features in '{path}', as the "
            f"files beside it have; got {counts.shape[0]:,} and {counts.shape[1]:,}."
        )
    return AnnData(counts, obs=barcodes, var=features.rename(columns=str))


def find_file(folder: Path, name: str) -> Path:
    """File of a folder, or its compressed version.

    Raises
    ------
    FileNotFoundError
        If neither exists.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise FileNotFoundError(
        f"Expected '{name}' or '{name}.gz' in '{folder}'; it has "
        f"{quote_names(present) or 'no files'}."
    )
