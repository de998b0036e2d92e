"""Archive that torch writes: a pickle, and a file of bytes for each storage of tensors."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import final

from cellvae.errors import FileFormatError

MAX_PICKLE_BYTES = 2**30
"""Bytes of a pickle that are read at most."""

DAMAGE = (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, struct.error)
"""What `zipfile` raises for damaged files: also NotImplementedError and UnicodeDecodeError."""


@final
class TorchArchive:
    """Zip file of torch whose members are stored as they are, so that none can swell.

    Parameters
    ----------
    path
        File that `torch.save` wrote.

    Raises
    ------
    FileFormatError
        If it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as file:
                self.members = {info.filename: info for info in file.infolist()}
        except DAMAGE as error:
            raise FileFormatError(
                f"Expected {path} to be a file that torch.save wrote (version 1.6 and later); "
                f"got another: {error}."
            ) from error
        packed = [m for m in self.members.values() if m.compress_type != zipfile.ZIP_STORED]
        found = [name for name in self.members if name.endswith("/data.pkl")]
        if packed or len(found) != 1:
            raise FileFormatError(
                f"Expected {path} to be a file that torch.save wrote; got a zip file with "
                f"{len(packed)} compressed members and {len(found)} pickles."
            )
        self.root = found[0].removesuffix("data.pkl")
        order = self.root + "byteorder"
        if order in self.members and self.read_member("byteorder", 16) != b"little":
            raise FileFormatError(f"Expected numbers in little-endian order in {path}.")

    def read_member(self, name: str, most: int) -> bytes:
        """Content of a member of at most so many bytes.

        Raises
        ------
        FileFormatError
            If it is not there, damaged or larger.
        """
        info = self.members.get(self.root + name)
        if info is None or info.file_size > most:
            size = "none" if info is None else f"{info.file_size:,} bytes"
            raise FileFormatError(
                f"Expected '{name}' in {self.path} with at most {most:,} bytes; got {size}."
            )
        try:
            with zipfile.ZipFile(self.path) as file:
                return file.read(info)
        except DAMAGE as error:
            raise FileFormatError(f"Cannot read '{name}' of {self.path}: {error}.") from error
