"""Reader of pickles that makes only what is on a list; everything else is refused or inert."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from cellvae.errors import FileFormatError
from cellvae.pickles.allowed_calls import ALLOWED_NAMES
from cellvae.pickles.stubs import AllowedCall, ArrayStub, DtypeStub, Stub
from cellvae.scvi.files.archive import MAX_PICKLE_BYTES

STORAGES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "FloatStorage": torch.float32,
        "DoubleStorage": torch.float64,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
    }
)
STUBBED_MODULES = ("pandas", "pyro", "torch.distributions", "scvi", "lightning", "anndata")
"""Packages whose objects are dropped, with all that they hold."""
MAX_DEPTH = 100


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *further: Any) -> Tensor:
    """Tensor over a storage, within its bounds."""
    whole = all(
        isinstance(values, tuple) and all(type(n) is int and n >= 0 for n in values)
        for values in (size, stride)
    )
    if not isinstance(storage, Tensor) or type(offset) is not int or offset < 0 or not whole:
        raise FileFormatError("Expected a tensor with storage, offset, size and stride.")
    if len(size) != len(stride):
        raise FileFormatError("Expected as many strides as dimensions of a tensor.")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > 0 and last >= storage.numel():
        raise FileFormatError("Expected a tensor within its storage.")
    if math.prod(size) > storage.numel():
        raise FileFormatError("Expected a tensor with no more numbers than its storage.")
    return storage.as_strided(size, stride, offset).clone()


def rebuild_parameter(data: Any, *further: Any) -> Any:
    """Tensor of a parameter."""
    return data


MODEL_FILE_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        **ALLOWED_NAMES,
        ("torch", "Size"): tuple,
        ("torch", "device"): Stub,
        ("torch._utils", "_rebuild_tensor_v2"): AllowedCall(rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): AllowedCall(rebuild_parameter),
    }
)
"""Everything that a file can make, and what makes it here."""


class PickleSource(Protocol):
    """File with a pickle, and perhaps with storages of tensors."""

    path: Path

    def read_member(self, name: str, most: int) -> bytes:
        """Read a member of at most so many bytes."""
        ...


@final
class SafeUnpickler(pickle.Unpickler):
    """Unpickler of a file that makes only what is on the list.

    Parameters
    ----------
    archive
        The file.
    """

    def __init__(self, archive: PickleSource) -> None:
        super().__init__(io.BytesIO(archive.read_member("data.pkl", MAX_PICKLE_BYTES)))
        self.archive = archive
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the file.

        Raises
        ------
        FileFormatError
            If it is not on the list: nothing of it is imported or called.
        """
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in MODEL_FILE_NAMES:
            return MODEL_FILE_NAMES[module, name]
        if any(module == known or module.startswith(f"{known}.") for known in STUBBED_MODULES):
            return Stub
        raise FileFormatError(
            f"{self.archive.path} asks for '{module}.{name}', which no file of scvi-tools needs. "
            "Nothing was run. Do not load it with anything else either, unless you know who wrote "
            "it."
        )

    def persistent_load(self, pid: Any) -> Tensor:
        """Storage of the archive."""
        known = isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
        if not known or not isinstance(pid[1], torch.dtype) or type(pid[4]) is not int:
            raise FileFormatError(f"Expected a storage of torch in {self.archive.path}.")
        dtype, key, size = pid[1], str(pid[2]), int(pid[4])
        if not key.isdigit():
            raise FileFormatError(f"Expected a numbered storage in {self.archive.path}.")
        if key not in self.storages:
            n_bytes = size * torch.empty((), dtype=dtype).element_size()
            content = self.archive.read_member(f"data/{key}", max(n_bytes, 0))
            if len(content) != n_bytes:
                raise FileFormatError(f"Expected {n_bytes:,} bytes in storage {key}.")
            self.storages[key] = (
                torch.frombuffer(bytearray(content), dtype=dtype)
                if content
                else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def read_pickle(archive: PickleSource) -> Any:
    """Values of a file: numbers, strings, lists, dictionaries, arrays and tensors.

    Raises
    ------
    FileFormatError
        If something in it is not on the list, or it is damaged.
    """
    try:
        return resolve_stubs(SafeUnpickler(archive).load())
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"Cannot read {archive.path}: {type(error).__name__}: {error}."
        ) from error


def resolve_stubs(value: Any, depth: int = 0) -> Any:
    """Value with arrays in place of their descriptions, and None in place of what is inert."""
    if depth > MAX_DEPTH:
        raise FileFormatError("Expected values that are not nested so deeply.")
    if isinstance(value, ArrayStub):
        found = value.values()
        if found.dtype == object:
            items = [resolve_stubs(item, depth + 1) for item in found.ravel().tolist()]
            found = np.empty(len(items), dtype=object)
            found[:] = items
        return found
    if isinstance(value, dict):
        return {
            resolve_stubs(key, depth + 1): resolve_stubs(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [resolve_stubs(item, depth + 1) for item in value]
    if isinstance(value, Stub | DtypeStub):
        return None
    return value
