"""C functions compiled by numba and cached on disk, under a hash of the sources of all kernels.

With `cache=True` numba compares only the file of the cached function with what was compiled; a
change to a function that is inlined from another file is not noticed, and the old machine code
runs on. Here every source file of `cellvae.kernels.compiled` is part of the key.

numba has no public interface for this. What it calls private is used in this module alone; where a
version of numba does not have it, importing the module fails and torch is used instead of kernels.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.misc.appdirs import AppDirs

from cellvae.core.log import logger
from cellvae.core.progress import is_interactive

SOURCE_FOLDER = Path(__file__).resolve().parent / "compiled"
PREFIX = "kernels-"
"""Beginning of the names of the folders of compiled code."""


@cache
def hash_sources(folder: Path = SOURCE_FOLDER) -> str:
    """Hash of the paths and contents of the Python files in a folder, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def candidate_folders(sources: Path = SOURCE_FOLDER) -> list[Path]:
    """Folders that may hold compiled code: that of `NUMBA_CACHE_DIR`, the package's, the user's.

    The first and the last are shared by all installations, so the path of the sources is part of
    the names of their subfolders.
    """
    installation = "cellvae-" + hashlib.sha256(str(sources).encode()).hexdigest()[:16]
    users = Path(AppDirs("cellvae", appauthor=False).user_cache_dir)
    folders = [sources / "__pycache__", users / "kernels" / installation]
    chosen: str = config.CACHE_DIR  # type: ignore[attr-defined]
    return [Path(chosen) / installation, *folders] if chosen else folders


@cache
def find_cache_folder() -> Path | None:
    """First folder that can be written, with a subfolder for these sources; None if there is none.

    Code that was compiled from other sources is removed from it.
    """
    for parent in candidate_folders():
        folder = parent / f"{PREFIX}{hash_sources()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        remove_outdated(folder)
        return folder
    return None


def remove_outdated(current: Path) -> None:
    """Remove the folders of other sources beside the one of the current sources."""
    for folder in current.parent.glob(f"{PREFIX}*"):
        if folder != current:
            # Another process may be doing the same.
            shutil.rmtree(folder, ignore_errors=True)


class KernelCacheLocator(_CacheLocator):
    """Where numba stores the machine code of a kernel, and what has to be equal to load it."""

    def __init__(self, folder: Path, source_file: str) -> None:
        self._folder = folder
        # Read by numba where it warns of a function that cannot be cached.
        self._py_file = source_file

    def get_cache_path(self) -> str:
        """Folder of the files."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """Hash of the sources of all kernels."""
        return hash_sources()

    def get_disambiguator(self) -> str:
        """Part of the file name; the names of kernels differ already."""
        return "kernel"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> KernelCacheLocator | None:
        """Locator of a function; None where no folder can be written."""
        folder = find_cache_folder()
        return None if folder is None else cls(folder, py_file)


@cache
def announce_compilation() -> None:
    """Say in a terminal or notebook, once, what the first run after an installation waits for."""
    if is_interactive():
        logger.info(
            "Compiling kernels for this processor, which takes some 20 seconds, once per "
            "installation. The command 'cellvae compile-kernels' does it ahead."
        )


class KernelCacheImpl(CompileResultCacheImpl):
    """How numba stores a compiled function, with our locator."""

    _locator_classes = [KernelCacheLocator]


class KernelCache(FunctionCache):
    """Machine code of one kernel on disk; a kernel that cannot be written is compiled again."""

    _impl_class = KernelCacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled function from disk; None if it is not there."""
        found = None
        with suppress(OSError):
            found = super().load_overload(sig, target_context)
        if found is None:
            announce_compilation()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled function to disk."""
        with suppress(OSError):
            super().save_overload(sig, data)


def compile_kernel(function: Callable[[Any], None]) -> Any:
    """Compile a function of one pointer, the address of its job, to a C function.

    Like `numba.cfunc("void(voidptr)", cache=True)`, with the cache of this module.

    Raises
    ------
    RuntimeError
        If no folder for compiled code can be written.
    """
    kernel: Any = CFunc(function, ((types.voidptr,), types.void), locals={}, options={})
    kernel._cache = KernelCache(function)
    kernel.compile()
    return kernel
