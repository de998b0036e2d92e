"""Blood cells of one donor in two batches, with cell types and quality measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellvae.data.datasets.tenx import read_tenx
from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES
from cellvae.data.downloads.folders import data_folder
from cellvae.data.downloads.tenx_files import tenx_file
from cellvae.data.readers.pickled_tables import read_pickled_tables
from cellvae.errors import InvalidDataError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

BATCHES = ("pbmc8k", "pbmc4k")
GENES, METADATA = "gene_info_pbmc.csv", "pbmc_metadata.pickle"
TABLES = ("design", "raw_qc", "normalized_qc")
ENTRIES = ("barcodes", "clusters", "list_clusters", "qc_pc", *TABLES)


def pbmc_dataset(
    save_path: str | Path | None = None, remove_extracted_data: bool = True
) -> AnnData:
    """Blood cells of a healthy donor in two batches (8k and 4k), with nine cell types.

    11,990 cells and the 3,346 genes for which differential expression is known from bulk data.
    The file with the cell types is a pickle; only tables of numbers and strings are read from it.

    Parameters
    ----------
    save_path
        Folder of the files; by default the cache of the user, see :doc:`/datasets`.
    remove_extracted_data
        Whether to remove the extracted files of the archives.

    Returns
    -------
    AnnData
        Counts by Ensembl identifiers; `obs["batch"]` is 0 or 1, cell types are in
        `obs["str_labels"]`, their numbers in `obs["labels"]`, their names in `uns["cell_types"]`;
        tables of quality in `obsm["design"]`, `obsm["raw_qc"]`, `obsm["normalized_qc"]`, and their
        components in `obsm["qc_pc"]`; symbols in `var["gene_symbols"]`.

    Raises
    ------
    DownloadError
        If a file cannot be downloaded, or is damaged.
    InvalidDataError
        If the file of the cell types lacks entries.
    UnsafeFileError
        If the pickle has anything but tables.

    References
    ----------
    Zheng et al., "Massively parallel digital transcriptional profiling of single cells", Nature
    Communications 8, 14049 (2017); the labels are of Lopez et al., "Deep generative modeling for
    single-cell transcriptomics", Nature Methods 15, 1053-1058 (2018).
    """
    genes = pd.read_csv(fetch(FILES[GENES], data_folder(save_path, GENES)))["ENSG"]
    path = fetch(FILES[METADATA], data_folder(save_path, METADATA))
    metadata = read_pickled_tables(path)
    missing = [part for part in ENTRIES if part not in metadata]
    if missing:
        raise InvalidDataError(
            f"Expected {quote_names(missing, len(missing))} in '{path}'; they are missing."
        )
    batches = []
    for name in BATCHES:
        batches.append(
            read_tenx(
                tenx_file(name, return_filtered=True),
                data_folder(save_path, name),
                remove_extracted_data,
                {"var_names": "gene_ids"},
            )
        )
    return join_batches(batches, genes, metadata)


def join_batches(batches: list[AnnData], genes: pd.Series, metadata: Mapping[str, Any]) -> AnnData:
    """Cells of both batches that the metadata have, in their order, with the metadata."""
    import anndata

    barcodes = np.concatenate([batch.obs_names for batch in batches])
    numbers = [str(number) for number in range(len(batches))]
    adata = anndata.concat(
        batches, label="batch", keys=numbers, index_unique="-", merge="same", join="inner"
    )
    # A barcode in both batches refers to the cell of the second one.
    positions = {barcode: position for position, barcode in enumerate(barcodes)}
    requested = metadata["barcodes"].index.to_numpy().astype(str)
    # 49 cells of the metadata are no longer among the published ones.
    known = np.array([barcode in positions for barcode in requested], dtype=bool)
    cells = [positions[barcode] for barcode in requested[known]]
    present = genes[genes.isin(adata.var_names)]
    adata = adata[cells, present.to_numpy()].copy()
    adata.obs_names = barcodes[cells]
    adata.obs["batch"] = adata.obs["batch"].astype(np.int64)
    for name in TABLES:
        table = metadata[name].loc[known].copy()
        table.index = adata.obs_names
        adata.obsm[name] = table
    adata.obsm["qc_pc"] = np.asarray(metadata["qc_pc"])[known]
    labels = np.asarray(metadata["clusters"])[known].astype(np.int64)
    cell_types = np.asarray(metadata["list_clusters"])
    adata.obs["labels"] = labels
    adata.obs["str_labels"] = cell_types[labels]
    adata.uns["cell_types"] = cell_types
    adata.var["n_counts"] = np.ravel(adata.X.sum(axis=0))
    return adata
