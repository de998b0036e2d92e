"""Data sets of CELLxGENE Discover, by their URL."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cellvae.core.files.output_files import replace_atomically
from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import DatasetFile
from cellvae.data.downloads.folders import data_folder
from cellvae.data.files.h5ad import read_h5ad
from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from anndata import AnnData


def cellxgene(
    url: str,
    filename: str | None = None,
    save_path: str | Path | None = None,
    return_path: bool = False,
) -> AnnData | str:
    """A data set of CELLxGENE Discover.

    Parameters
    ----------
    url
        Address of the data set in the Explorer (`.../e/<identifier>.cxg/`), which needs the
        package cellxgene-census; or address of its `.h5ad` file, which needs nothing.
    filename
        Name of the file in the folder; by default the identifier.
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    return_path
        Whether to return the path of the file instead of its cells.

    Returns
    -------
    AnnData or str
        Cells of the file, or its path.

    Raises
    ------
    InvalidOptionError
        If the address is neither of them.
    ImportError
        If the package cellxgene-census is needed and not installed.
    DownloadError
        If the file cannot be downloaded, or is damaged.
    """
    address = PurePosixPath(urlsplit(url).path)
    explorer_match = re.search(r"/e/([^/.]+)", url)
    if address.suffix != ".h5ad" and explorer_match is None:
        raise InvalidOptionError(
            "Expected the address of a data set in the CELLxGENE Explorer "
            "(https://cellxgene.cziscience.com/e/<identifier>.cxg/) or of a .h5ad file; got "
            f"'{url}'."
        )
    identifier = address.stem if explorer_match is None else explorer_match.group(1)
    name = filename or f"{identifier}.h5ad"
    folder = data_folder(save_path, name)
    path = folder / name
    if explorer_match is None:
        fetch(DatasetFile(name, (url,)), folder)
    elif not path.exists():
        download_from_census(identifier, path)
    return str(path) if return_path else read_h5ad(path)


def download_from_census(identifier: str, path: Path) -> None:
    """Download the file of a data set through the package cellxgene-census."""
    try:
        from cellxgene_census import download_source_h5ad
    except ImportError as error:
        raise ImportError(
            "Expected the package cellxgene-census for a data set of the CELLxGENE Explorer; it is "
            "not installed. Install it with: pip install cellxgene-census. Or download the .h5ad "
            f"file from the page of the data set and put it at '{path.absolute()}'."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as partial:
        download_source_h5ad(identifier, to_path=str(partial))
