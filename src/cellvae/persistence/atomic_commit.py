"""Atomic replacement of a saved model: an interruption leaves the old model or the new one.

The files are written to a temporary folder inside the folder of the model. Renaming it to
`.model.incoming` commits the new model: from then on a file in there has precedence over the file
of the same name outside. The files are then moved to their places one by one, and every state in
between reads as the new model. Nothing else in the folder is touched.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cellvae.core.files.output_files import fsync_path
from cellvae.errors import CellvaeWarning
from cellvae.persistence.paths import FILE_NAMES, ModelPaths

if TYPE_CHECKING:
    from pathlib import Path

ABANDONED_AFTER = 24 * 3600
"""Seconds after which a temporary folder of a killed process is removed."""


@contextmanager
def staging_folder(place: ModelPaths) -> Iterator[Path]:
    """Context with an empty temporary folder for the files of a model, removed at the end.

    Raises
    ------
    OSError
        With a note that nothing was saved.
    """
    made = [path for path in (place.folder, *place.folder.parents) if not path.exists()]
    beginning = f".{place.prefix}model.saving-"
    stage = place.folder / f"{beginning}{secrets.token_hex(4)}"
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        for path in made:
            fsync_path(path.parent)
        remove_abandoned(place.folder, beginning)
        stage.mkdir()
        yield stage
    except OSError as error:
        error.add_note(f"The model was not saved in '{place.folder}'; what was there is unchanged.")
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # not empty: the model is in there
                path.rmdir()


def remove_abandoned(folder: Path, beginning: str) -> None:
    """Remove temporary folders of processes that were killed while they were saving."""
    for path in folder.iterdir():
        if path.name.startswith(beginning) and not path.is_symlink():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    shutil.rmtree(path, ignore_errors=True)


def commit(place: ModelPaths, stage: Path) -> None:
    """Commit the files of a complete model, and move them to their places."""
    fsync_path(stage)
    complete_pending(place)
    for left in reversed(range(100)):
        try:
            stage.rename(place.pending_dir)
            break
        except OSError as error:
            # Another process committed here at the same moment: its files are moved first.
            if left == 0 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            complete_pending(place)
    try:
        complete_pending(place)
    except OSError as error:
        warnings.warn(
            f"The model is saved in '{place.folder}' and can be loaded, but some of its files are "
            f"still in '{place.pending_dir.name}' there: {error}. The next load or save moves "
            "them.",
            CellvaeWarning,
            stacklevel=4,
        )


def complete_pending(place: ModelPaths) -> None:
    """Move committed files to their places; several processes may do it at once."""
    if not place.pending_dir.is_dir() or place.pending_dir.is_symlink():
        return
    fsync_path(place.folder)
    for name in FILE_NAMES:
        with contextlib.suppress(FileNotFoundError):
            place.pending_path(name).replace(place.final_path(name))
    fsync_path(place.folder)
    with contextlib.suppress(OSError):  # removed already, or another process has just committed
        place.pending_dir.rmdir()
