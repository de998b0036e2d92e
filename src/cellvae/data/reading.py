"""Read cells from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def read_h5ad(path: Path) -> AnnData:
    """AnnData in a file.

    Raises
    ------
    InvalidDataError
        If the file is no AnnData.
    """
    import anndata

    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InvalidDataError(
            f"Expected an AnnData (.h5ad) in '{path}'; it cannot be read: {error}"
        ) from error
