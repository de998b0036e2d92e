"""Matrix of an AnnData in backed mode, as a matrix in a file of which runs of cells are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.data.storage.matrix_files.open_matrix import matrix_of_element


def backed_matrix(values: Any) -> JoinedMatrix | None:
    """Matrix in the file that an AnnData was opened from; None if its file may change.

    Parameters
    ----------
    values
        Matrix of the AnnData: a CSR dataset of AnnData, or a dataset of h5py. One of a file that
        was opened for writing as well (`backed="r+"`), or is not on a disk, has to be read as
        AnnData reads it.
    """
    import h5py

    element = getattr(values, "group", values)
    if not isinstance(element, h5py.Group | h5py.Dataset) or element.file.mode != "r":
        return None
    path = Path(element.file.filename).absolute()
    if not path.is_file():
        return None
    name = element.name.strip("/")
    matrix = matrix_of_element(path, f"{name} of '{path}'", name, element)
    return JoinedMatrix([matrix], [None], matrix.n_genes)
