"""Names that any pickle may use: numbers, strings, lists, dictionaries and arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cellvae.errors import FileFormatError
from cellvae.pickles.stubs import AllowedCall, ArrayStub, DtypeStub, Stub


def new_bytes(*arguments: Any) -> bytes:
    """Empty bytes, as protocol 2 writes them."""
    if arguments:
        raise FileFormatError("Expected bytes() without a size in the file.")
    return b""


def encode_latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes from the string that protocol 2 writes for them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FileFormatError("Expected bytes written as latin1 text in the file.")
    return text.encode("latin1")


def new_dict(*arguments: Any) -> dict[Any, Any]:
    """Dictionary in place of a `defaultdict`."""
    return {}


def new_array_stub(*arguments: Any) -> ArrayStub:
    """Stub of an array whose shape and values follow."""
    return ArrayStub()


def numpy_scalar(kind: Any, content: Any = b"") -> Any:
    """NumPy scalar as a Python scalar."""
    if not isinstance(kind, DtypeStub) or not isinstance(content, bytes):
        raise FileFormatError("Expected a number with its type in the file.")
    dtype = kind.dtype()
    if len(content) != dtype.itemsize:
        raise FileFormatError("Expected as many bytes as a number has.")
    value = np.frombuffer(content, dtype=dtype)[0]
    # Times in nanoseconds would become whole numbers.
    return value if dtype.kind in "mM" else value.item()


ALLOWED_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("__builtin__", "bytes"): AllowedCall(new_bytes),
        ("builtins", "bytes"): AllowedCall(new_bytes),
        ("__builtin__", "dict"): dict,
        ("builtins", "dict"): dict,
        ("__builtin__", "list"): list,
        ("builtins", "list"): list,
        ("__builtin__", "set"): set,
        ("builtins", "set"): set,
        ("__builtin__", "slice"): slice,
        ("builtins", "slice"): slice,
        ("_codecs", "encode"): AllowedCall(encode_latin1),
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): AllowedCall(new_dict),
        ("numpy", "dtype"): DtypeStub,
        ("numpy", "ndarray"): Stub,
        ("numpy.core.multiarray", "_reconstruct"): AllowedCall(new_array_stub),
        ("numpy._core.multiarray", "_reconstruct"): AllowedCall(new_array_stub),
        ("numpy.core.multiarray", "scalar"): AllowedCall(numpy_scalar),
        ("numpy._core.multiarray", "scalar"): AllowedCall(numpy_scalar),
    }
)
"""Names in a pickle for plain values, and the function that creates each here."""
