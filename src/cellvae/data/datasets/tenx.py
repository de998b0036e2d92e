"""Data sets of 10x Genomics by name, or other files of the same format."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cellvae.data.downloads.archive import extract_matrix, find_extracted_matrix
from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import DatasetFile
from cellvae.data.downloads.folders import data_folder
from cellvae.data.downloads.tenx_files import tenx_file
from cellvae.errors import (
    DataWarning,
    InvalidDataError,
    UnknownOptionError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData


def dataset_10x(
    dataset_name: str | None = None,
    filename: str | None = None,
    save_path: str | Path | None = None,
    url: str | None = None,
    return_filtered: bool = True,
    remove_extracted_data: bool = False,
    **scanpy_read_10x_kwargs: Any,
) -> AnnData:
    """A data set of 10x Genomics, without empty cells and genes.

    Parameters
    ----------
    dataset_name
        One of: 5k_pbmc_protein_v3, 5k_pbmc_protein_v3_nextgem, 1M_neurons, b_cells,
        cd14_monocytes, cd34, cd4_t_helper, cd56_nk, cytotoxic_t, fresh_68k_pbmc_donor_a,
        frozen_pbmc_donor_a, frozen_pbmc_donor_b, frozen_pbmc_donor_c, heart_10k_v3, heart_1k_v2,
        heart_1k_v3, hgmm_10k_v3, hgmm_1k_v2, hgmm_1k_v3, hgmm_5k_v3, malt_10k_protein_v3,
        memory_t, naive_cytotoxic, naive_t, neuron_10k_v3, neuron_1k_v2, neuron_1k_v3, neuron_9k,
        pbmc4k, pbmc8k, pbmc_10k_protein_v3, pbmc_10k_v3, pbmc_1k_protein_v3, pbmc_1k_v2,
        pbmc_1k_v3, regulatory_t, t_3k, t_4k.
    filename
        Name in `save_path` of another file, `.h5` or `.tar.gz`. It is downloaded from `url` if it
        is not there. Without name, file and address, the matrix that is extracted in `save_path`
        is read.
    save_path
        Folder of the files, which are in `save_path/<dataset_name>`; by default the cache of the
        user, see :doc:`/datasets`.
    url
        Address of another file.
    return_filtered
        Whether to read only barcodes that are cells, or all.
    remove_extracted_data
        Whether to remove the extracted files of a `.tar.gz` archive.
    scanpy_read_10x_kwargs
        Further arguments of `scanpy.read_10x_mtx` (of archives) or `scanpy.read_10x_h5`:
        `gex_only=False` for all types of features, `var_names="gene_ids"`.

    Returns
    -------
    AnnData
        Counts, sparse; `n_counts` in `obs` and `var`.

    Raises
    ------
    InvalidOptionError
        If no data set has this name.
    UnknownOptionError
        If scanpy's function has no such argument.
    DownloadError
        If the file cannot be downloaded, or is damaged.
    InvalidDataError
        If an archive does not have exactly one matrix.
    """
    if dataset_name is not None:
        for name, value in (("url", url), ("filename", filename)):
            if value is not None:
                warnings.warn(
                    f"{name}={value!r} is not used, since dataset_name has a file of its own.",
                    DataWarning,
                    stacklevel=2,
                )
        file = tenx_file(dataset_name, return_filtered)
        folder = data_folder(save_path, dataset_name, "10X")
        return read_tenx(file, folder, remove_extracted_data, scanpy_read_10x_kwargs)
    if filename is None and url is None:
        folder = data_folder(save_path, "", "10X")
        extracted = find_extracted_matrix(folder, "")
        if extracted is None:
            raise InvalidDataError(
                f"Expected one folder with matrix.mtx in '{folder}'; got none or several. Give "
                "dataset_name, or filename and url."
            )
        return read_matrix(extracted, scanpy_read_10x_kwargs)
    name = filename or PurePosixPath(urlsplit(str(url)).path).name
    folder = data_folder(save_path, name, "10X")
    file = DatasetFile(name, () if url is None else (url,))
    return read_tenx(file, folder, remove_extracted_data, scanpy_read_10x_kwargs)


def read_tenx(
    file: DatasetFile, folder: Path, remove_extracted_data: bool, scanpy_kwargs: Mapping[str, Any]
) -> AnnData:
    """Cells of a file of 10x Genomics, downloaded first if it does not exist."""
    import scanpy

    if not file.name.endswith(".tar.gz"):
        check_scanpy_kwargs(scanpy.read_10x_h5, scanpy_kwargs)
        return read_nonempty(scanpy.read_10x_h5, fetch(file, folder), scanpy_kwargs)
    check_scanpy_kwargs(scanpy.read_10x_mtx, scanpy_kwargs)
    archive = folder / file.name
    prefix = archive.name.partition("_")[0]
    extracted = None if archive.exists() else find_extracted_matrix(archive.parent, prefix)
    if extracted is not None:
        return read_matrix(extracted, scanpy_kwargs)
    with extract_matrix(fetch(file, folder), keep=not remove_extracted_data) as matrix:
        return read_matrix(matrix, scanpy_kwargs)


def read_matrix(folder: Path, scanpy_kwargs: Mapping[str, Any]) -> AnnData:
    """Cells of a folder with matrix, genes and barcodes."""
    import scanpy

    check_scanpy_kwargs(scanpy.read_10x_mtx, scanpy_kwargs)
    return read_nonempty(scanpy.read_10x_mtx, folder, scanpy_kwargs)


def read_nonempty(read: Any, path: Path, scanpy_kwargs: Mapping[str, Any]) -> AnnData:
    """AnnData without empty cells and genes, with unique names of genes."""
    import scanpy

    with warnings.catch_warnings():
        # They are made unique below.
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        adata = read(path, **scanpy_kwargs)
    adata.var_names_make_unique()
    scanpy.pp.filter_cells(adata, min_counts=1)
    scanpy.pp.filter_genes(adata, min_counts=1)
    return adata


def check_scanpy_kwargs(read: Any, scanpy_kwargs: Mapping[str, Any]) -> None:
    """Raise, before any download, if scanpy's function does not have an argument."""
    known = [*inspect.signature(read).parameters][1:]
    for name in scanpy_kwargs:
        if name not in known:
            raise UnknownOptionError(
                f"scanpy.{read.__name__}() has no argument '{name}'.{did_you_mean(name, known)} It "
                f"has {quote_names(known, len(known))}."
            )
