"""Cells of the mouse's cortex and hippocampus, from a table of text."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES
from cellvae.data.downloads.folders import data_folder
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData

N_HEADERS = 11
"""Lines before the first gene."""
CLUSTER_LINE, CELL_TYPE_LINE = 1, 8
N_NAMES = 2
"""Columns before the first cell: the gene, and the cluster of the gene."""


def cortex(save_path: str | Path | None = None) -> AnnData:
    """Cells of the mouse's cortex and hippocampus, 3,005 of seven types.

    Parameters
    ----------
    save_path
        Folder of the file, `expression.bin`; by default the cache of the user, see
        :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts of 19,972 genes, dense; cell types in `obs["cell_type"]`, their numbers in
        `obs["labels"]`, and the numbers of the finer clusters in `obs["precise_labels"]`.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.
    InvalidDataError
        If it is not the table of the authors.

    References
    ----------
    Zeisel et al., "Cell types in the mouse cortex and hippocampus revealed by single-cell
    RNA-seq", Science 347, 1138-1142 (2015).
    """
    name = "expression.bin"
    return read_cortex(fetch(FILES[name], data_folder(save_path, name)))


def read_cortex(path: Path) -> AnnData:
    """Cells of the table: eleven lines about the cells, then a line of counts for each gene.

    Raises
    ------
    InvalidDataError
        If the file is no such table.
    """
    from anndata import AnnData

    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.reader(lines, delimiter="\t")
            headers = [line for line, _ in zip(reader, range(N_HEADERS), strict=False)]
        cell_types = np.array(headers[CELL_TYPE_LINE][N_NAMES:], dtype=object)
        clusters = np.array(headers[CLUSTER_LINE][N_NAMES:], dtype=object)
        table = pd.read_csv(
            path, sep="\t", header=None, skiprows=N_HEADERS, na_filter=False, dtype={0: object}
        )
        counts = table.iloc[:, N_NAMES:].to_numpy(np.int32).T.copy()
        cells = pd.DataFrame({"cell_type": cell_types, "cluster": clusters})
        if not len(cells) or len(cells) != len(counts):
            raise ValueError(f"{len(cells):,} cell types for {len(counts):,} cells")
    except (ValueError, IndexError) as error:
        raise InvalidDataError(
            f"Expected the table of cortex cells in '{path}'; it cannot be read: {error}"
        ) from error
    adata = AnnData(counts, var=pd.DataFrame(index=table[0].astype(str).to_numpy()))
    adata.obs["labels"] = np.unique(cell_types.astype(str), return_inverse=True)[1]
    adata.obs["precise_labels"] = np.unique(clusters.astype(str), return_inverse=True)[1]
    adata.obs["cell_type"] = cell_types
    return adata
