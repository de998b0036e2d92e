"""Folder that the files of a data set are stored in."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CELLVAE_DATA_DIR"
"""Environment variable with the folder of the data sets."""
SCVI_FOLDER = "data"
"""Folder of the downloads of scvi-tools, in the working directory."""


def data_folder(save_path: str | Path | None, name: str, below: str = "") -> Path:
    """Folder of a file: the given one, that of the environment variable, or the user's cache.

    Parameters
    ----------
    save_path
        Folder that takes precedence.
    name
        File or folder to look for.
    below
        Folder of this data set within the folder of all data sets.

    Returns
    -------
    Path
        `save_path` if given. Otherwise the folder that `CELLVAE_DATA_DIR` names; `data/`, the
        download folder of scvi-tools, if it has the file already; or else the user's cache.
    """
    if save_path is not None:
        return Path(save_path).expanduser()
    configured = os.environ.get(VARIABLE)
    if configured:
        return Path(configured).expanduser() / below
    if (Path(SCVI_FOLDER, below) / name).exists():
        return Path(SCVI_FOLDER, below)
    import pooch

    return Path(pooch.os_cache("cellvae")) / below
