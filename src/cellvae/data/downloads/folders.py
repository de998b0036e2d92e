"""Folder that the files of a data set are kept in."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CELLVAE_DATA_DIR"
"""Environment variable with the folder of the data sets."""
SCVI_FOLDER = "data"
"""Folder that scvi-tools downloads into, below the one that Python runs in."""


def data_folder(save_path: str | Path | None, name: str, below: str = "") -> Path:
    """Folder of a file: what is given, the environment variable, or the cache of the user.

    Parameters
    ----------
    save_path
        Folder to use, whatever else holds.
    name
        File or folder that is looked for.
    below
        Folder of this data set within the folder of all data sets.

    Returns
    -------
    Path
        `save_path` if given. Otherwise the folder that `CELLVAE_DATA_DIR` names; `data/`, where
        scvi-tools puts its downloads, if the file is there already; or else the user's cache.
    """
    if save_path is not None:
        return Path(save_path).expanduser()
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / below
    if (Path(SCVI_FOLDER, below) / name).exists():
        return Path(SCVI_FOLDER, below)
    import pooch

    return Path(pooch.os_cache("cellvae")) / below
