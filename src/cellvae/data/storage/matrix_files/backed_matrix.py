"""Matrix of an AnnData in backed mode, as a matrix in a file of which runs of cells are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.data.storage.matrix_files.open_matrix import matrix_of_element, open_root


@final
class BackedElement:
    """Element of the file of an AnnData, which is read through the same handle while it is open.

    A second handle would keep the file open once the AnnData has closed it.

    Parameters
    ----------
    path, name
        File, and the path of the element within it.
    element
        The element that the AnnData has opened.
    """

    def __init__(self, path: Path, name: str, element: Any) -> None:
        self.path = path
        self.name = name
        self.element = element

    def __call__(self) -> Any:
        """Group or array of the element."""
        return self.element or open_root(self.path)[self.name]

    def __getstate__(self) -> dict[str, Any]:
        """State without the open file, which another process cannot use."""
        return self.__dict__ | {"element": None}


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
    opened = BackedElement(path, name, element)
    matrix = matrix_of_element(path, f"{name} of '{path}'", name, element, opened)
    return JoinedMatrix([matrix], [None], matrix.n_genes)
