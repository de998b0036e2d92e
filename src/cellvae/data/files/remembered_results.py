"""Results of passes over files, remembered on disk while the files stay the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cellvae.core.files.output_files import replace_atomically

VARIABLE = "CELLVAE_DATA_DIR"
"""Environment variable with a folder that takes the place of the user's cache."""
MAX_RECENT = 16
"""Results that are kept in memory too, so that nothing is read twice if the disk is full."""
recent: dict[Path, str] = {}
"""Latest results of this process, as they are on disk, by their file."""


def read_result(key: str) -> dict[str, Any] | None:
    """Remembered result of a key; None if there is none that can be read."""
    path = path_of_result(key)
    try:
        values = json.loads(recent[path] if path in recent else path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def remember_result(key: str, values: dict[str, Any]) -> None:
    """Remember a result by a key; in this process alone if its folder cannot be written to."""
    path, text = path_of_result(key), json.dumps(values)
    recent[path] = text
    while len(recent) > MAX_RECENT:
        del recent[next(iter(recent))]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            temporary.write_text(text)
    except OSError:
        return


def path_of_result(key: str) -> Path:
    """File of a remembered result, in the folder of the data sets or in the user's cache."""
    configured = os.environ.get(VARIABLE)
    if configured:
        return Path(configured).expanduser() / "checked" / f"{key}.json"
    import pooch

    return Path(pooch.os_cache("cellvae")) / "checked" / f"{key}.json"
