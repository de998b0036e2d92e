"""Header of a safetensors file: names, types and shapes, checked before any value is read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import torch

from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence.fsync import regular_file_size
from cellvae.persistence.json_codec import loads

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES = 16 * 2**20
"""Largest size of a header in bytes; a hundred thousand tensors fit."""

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "I16": torch.int16,
        "I32": torch.int32,
        "I64": torch.int64,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
    }
)
"""Dtypes of tensors, by their names in the file."""


class TensorSpec(NamedTuple):
    """Dtype and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


class TensorSpan(NamedTuple):
    """A tensor in a file: where its bytes start and stop, counted from the end of the header."""

    spec: TensorSpec
    start: int
    stop: int


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Type and shape of each tensor in a file, in the order of their bytes; no values are read.

    Parameters
    ----------
    path
        A safetensors file: the length of the header in 8 bytes, the header as JSON, the values
        (format 0.1 of https://github.com/huggingface/safetensors).

    Raises
    ------
    FileFormatError
        If the file is missing, cut, damaged, or no safetensors file.
    UnsafeFileError
        If it speaks of more than it holds, or of tensors that overlap.
    """
    regular_file_size(path)
    with path.open("rb") as file:
        return parse_header(file, path)


def read_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a file, strings by name.

    Raises
    ------
    FileFormatError
        If the file is missing, cut or damaged.
    """
    regular_file_size(path)
    with path.open("rb") as file:
        metadata = header_document(file, path).get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def parse_header(file: BinaryIO, path: Path) -> dict[str, TensorSpec]:
    """Header of an open file, whose position is then the start of the values."""
    header = header_document(file, path)
    header.pop("__metadata__", None)
    spans = {name: parse_span(name, entry, path) for name, entry in header.items()}
    check_spans(spans, os.fstat(file.fileno()).st_size - file.tell(), path)
    in_order = sorted(spans, key=lambda name: spans[name][1:])
    return {name: spans[name].spec for name in in_order}


def header_document(file: BinaryIO, path: Path) -> dict[str, Any]:
    """JSON object that an open file begins with."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise damaged_error(
            path, f"its {size} bytes are fewer than the 8 that every file starts with"
        )
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise unsafe_error(path, f"a header of {length:,} bytes")
    if length > size - 8:
        raise damaged_error(path, f"its header has {length:,} bytes, the whole file {size:,}")
    try:
        header = loads(file.read(length).decode("utf-8"), f"the header of {path}")
    except UnicodeDecodeError as error:
        raise damaged_error(path, f"its header is not UTF-8: {error}") from error
    if not isinstance(header, dict):
        raise damaged_error(path, "its header is not a JSON object")
    return header


def parse_span(name: str, entry: Any, path: Path) -> TensorSpan:
    """Checked entry of a header."""
    quoted = repr(name[:80])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise damaged_error(path, f"the entry of {quoted} is not of dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise damaged_error(path, f"{quoted} has the dtype {str(code)[:20]!r}, which no model has")
    if not is_list_of_sizes(shape) or not is_list_of_sizes(offsets) or len(offsets) != 2:
        raise damaged_error(
            path, f"the shape or offsets of {quoted} are not whole numbers from 0 up"
        )
    # Of empty tensors too: strides are products of the other dimensions.
    if len(shape) > 32 or math.prod(max(size, 1) for size in shape) >= 2**60:
        raise unsafe_error(path, f"more numbers or dimensions in {quoted} than can be addressed")
    spec = TensorSpec(DTYPES[code], tuple(shape))
    if offsets[1] - offsets[0] != spec.n_bytes:
        found = f"the bytes {offsets[0]:,} to {offsets[1]:,}"
        raise unsafe_error(
            path, f"{quoted} to be {spec}, or {spec.n_bytes:,} bytes, and to lie in {found}"
        )
    return TensorSpan(spec, *offsets)


def check_spans(spans: Mapping[str, TensorSpan], size: int, path: Path) -> None:
    """Check that tensors fill the file without overlaps and gaps."""
    in_order = sorted((start, stop, name) for name, (_, start, stop) in spans.items())
    for (_, stop, before), (start, _, after) in pairwise([(0, 0, "the header"), *in_order]):
        between = f"{before[:80]!r} and {after[:80]!r}"
        if start < stop:
            raise unsafe_error(path, f"the same bytes for {between}")
        if start > stop:
            raise damaged_error(
                path, f"{start - stop:,} bytes between {between} belong to no tensor"
            )
    end = in_order[-1][1] if in_order else 0
    if end != size:
        raise damaged_error(path, f"its tensors take {end:,} bytes, and {size:,} follow the header")


def is_list_of_sizes(values: Any) -> bool:
    """Whether a value is a list of integers that are not negative."""
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def damaged_error(path: Path, problem: str) -> FileFormatError:
    """Error for a damaged file."""
    return FileFormatError(
        f"Expected a complete safetensors file at {path}; {problem}. "
        "The file was cut or damaged: copy it anew."
    )


def unsafe_error(path: Path, claim: str) -> UnsafeFileError:
    """Error for a file with an impossible header."""
    return UnsafeFileError(
        f"Expected a safetensors file at {path}; it claims {claim}. "
        "No model is saved like that: do not use this file."
    )
