"""Arrays of zarr stores on a local disk, of which spans of rows are read chunk by chunk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.data.storage.matrix_files.blosc_blocks import StoredChunk, decompress_part

COMPRESSORS = ("blosc", "gzip", "lz4", "zlib", "zstd")
"""Names of the compressors that are decoded here, in both formats of zarr."""
ABSENT = 2**64 - 1
"""Offset, in the index of a shard, of a chunk that was not written."""


@final
@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """How the rows of an array are stored: in chunks of whole rows, and these in shards.

    Parameters
    ----------
    row_shape
        Shape of a row.
    dtype
        Data type of the values, with their byte order.
    chunk_rows
        Rows of a chunk, which is compressed as one piece.
    shard_rows
        Rows of a file: those of a chunk, or of a shard of many chunks.
    index_size
        Bytes of the index at the end of a shard; 0 where a file is a chunk.
    compressor
        Name of the compressor; None for none.
    file_name
        Pattern of the names of the files, with the number of the file.
    """

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    shard_rows: int
    index_size: int
    compressor: str | None
    file_name: str


@final
class ZarrRows:
    """Rows of an array of a zarr store on a local disk.

    Zarr's own reading costs milliseconds per span in Python, more than the decompression, and reads
    the index of a shard anew for each. Here each chunk is read and decompressed once for all spans,
    and of one by Blosc only the blocks that are needed.

    Parameters
    ----------
    folder
        Folder of the array.
    layout
        How its rows are stored.
    """

    def __init__(self, folder: Path, layout: ChunkLayout) -> None:
        self.folder = folder
        self.layout = layout
        self.indices: dict[int, NDArray[np.uint64]] = {}

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Rows of increasing spans, concatenated.

        Raises
        ------
        OSError
            If a chunk is missing or cannot be read.
        ValueError
            If a chunk is damaged.
        """
        n_rows = sum(end - first for first, end in spans)
        native = self.layout.dtype.newbyteorder("=")
        rows = np.empty((n_rows, *self.layout.row_shape), dtype=native)
        filled = 0
        pieces = split_at_chunks(spans, self.layout.chunk_rows)
        for number, group in groupby(pieces, key=itemgetter(0)):
            inside = [(first, end) for _, first, end in group]
            low = inside[0][0]
            values = self.read_chunk(number, low, inside[-1][1])
            for first, end in inside:
                rows[filled : filled + end - first] = values[first - low : end - low]
                filled += end - first
        return rows

    def read_chunk(self, number: int, first: int, end: int) -> NDArray[Any]:
        """Rows of a chunk from `first` to before `end`."""
        layout = self.layout
        row_bytes = math.prod(layout.row_shape) * layout.dtype.itemsize
        part = self.decode(self.find_chunk(number), first * row_bytes, end * row_bytes)
        return np.frombuffer(part, dtype=layout.dtype).reshape(end - first, *layout.row_shape)

    def decode(self, stored: StoredChunk, first: int, end: int) -> memoryview:
        """Some bytes of a chunk, decompressed."""
        name = self.layout.compressor
        if name == "blosc":
            return decompress_part(stored, first, end)
        if name is None:
            stored.check_size(stored.length)
            with stored.path.open("rb") as file:
                return memoryview(stored.read_part(file, first, end - first))
        import numcodecs

        with stored.path.open("rb") as file:
            encoded = stored.read_part(file, 0, stored.length)
        decoded = memoryview(numcodecs.get_codec({"id": name}).decode(encoded)).cast("B")
        stored.check_size(len(decoded))
        return decoded[first:end]

    def find_chunk(self, number: int) -> StoredChunk:
        """Where the bytes of a chunk are stored."""
        layout = self.layout
        n_bytes = layout.chunk_rows * math.prod(layout.row_shape) * layout.dtype.itemsize
        per_file = layout.shard_rows // layout.chunk_rows
        path = self.folder / layout.file_name.format(number // per_file)
        if not layout.index_size:
            return StoredChunk(path, 0, path.stat().st_size, n_bytes)
        offset, length = (
            int(n) for n in self.shard_index(number // per_file, path)[number % per_file]
        )
        if offset == ABSENT:
            # Zarr takes it for zeros, which no stored value of a CSR matrix is.
            raise OSError(f"chunk {number} of '{self.folder}' was not written.")
        return StoredChunk(path, offset, length, n_bytes)

    def shard_index(self, shard: int, path: Path) -> NDArray[np.uint64]:
        """Offset and length of each chunk of a shard, [chunks, 2], read once."""
        if shard not in self.indices:
            n_chunks = self.layout.shard_rows // self.layout.chunk_rows
            with path.open("rb") as file:
                file.seek(-self.layout.index_size, 2)
                index = np.frombuffer(file.read(16 * n_chunks), dtype="<u8")
            self.indices[shard] = index.reshape(n_chunks, 2)
        return self.indices[shard]


def split_at_chunks(spans: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int, int]]:
    """Parts of spans within a chunk: its number, first row and end within the chunk."""
    for begin, end in spans:
        for number in range(begin // size, -(-end // size)):
            start = number * size
            yield number, max(begin, start) - start, min(end, start + size) - start


def open_zarr_rows(folder: Path) -> ZarrRows | None:
    """Rows of the array in a folder; None if zarr itself has to read it."""
    try:
        if (folder / "zarr.json").exists():
            layout = layout_of_v3(json.loads((folder / "zarr.json").read_text()))
        else:
            layout = layout_of_v2(json.loads((folder / ".zarray").read_text()))
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return None if layout is None else ZarrRows(folder, layout)


def layout_of_v2(metadata: Mapping[str, Any]) -> ChunkLayout | None:
    """Layout of an array of format 2; None if it is one that zarr has to read."""
    shape, chunks = metadata["shape"], metadata["chunks"]
    compressor = metadata["compressor"]
    name = None if compressor is None else compressor["id"]
    supported = name in (None, *COMPRESSORS) and not metadata.get("filters")
    if not supported or metadata["order"] != "C" or chunks[1:] != shape[1:]:
        return None
    separator = metadata.get("dimension_separator", ".")
    return numeric_layout(
        ChunkLayout(
            row_shape=tuple(shape[1:]),
            dtype=np.dtype(metadata["dtype"]),
            chunk_rows=chunks[0],
            shard_rows=chunks[0],
            index_size=0,
            compressor=name,
            file_name=separator.join(["{}", *["0"] * len(shape[1:])]),
        )
    )


def layout_of_v3(metadata: Mapping[str, Any]) -> ChunkLayout | None:
    """Layout of an array of format 3, sharded or not; None if it is one that zarr has to read."""
    shape, grid = metadata["shape"], metadata["chunk_grid"]
    chunks = outer = grid["configuration"]["chunk_shape"]
    codecs, index_size = metadata["codecs"], 0
    if codecs[0]["name"] == "sharding_indexed" and len(codecs) == 1:
        sharding = codecs[0]["configuration"]
        chunks, codecs = sharding["chunk_shape"], sharding["codecs"]
        size = shard_index_size(sharding, outer, chunks)
        if size is None:
            return None
        index_size = size
    decoded = decoding_of(codecs)
    whole_rows = chunks[1:] == outer[1:] == shape[1:] and not outer[0] % chunks[0]
    if decoded is None or not whole_rows or grid["name"] != "regular":
        return None
    if metadata.get("storage_transformers"):
        return None
    order, compressor = decoded
    encoding = metadata["chunk_key_encoding"]
    is_default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
    parts = [*(["c"] if is_default else []), "{}", *["0"] * len(shape[1:])]
    return numeric_layout(
        ChunkLayout(
            row_shape=tuple(shape[1:]),
            dtype=np.dtype(metadata["data_type"]).newbyteorder(order),
            chunk_rows=chunks[0],
            shard_rows=outer[0],
            index_size=index_size,
            compressor=compressor,
            file_name=separator.join(parts),
        )
    )


def numeric_layout(layout: ChunkLayout) -> ChunkLayout | None:
    """Layout of an array of numbers; None for other values."""
    return layout if layout.dtype.kind in "iuf" and layout.chunk_rows > 0 else None


def shard_index_size(
    sharding: Mapping[str, Any], outer: Sequence[int], chunks: Sequence[int]
) -> int | None:
    """Bytes of the index at the end of a shard, with its checksum; None if it is elsewhere."""
    names = [codec["name"] for codec in sharding["index_codecs"]]
    is_little = sharding["index_codecs"][0].get("configuration", {}).get("endian") == "little"
    at_end = sharding.get("index_location", "end") == "end"
    if names not in (["bytes"], ["bytes", "crc32c"]) or not is_little or not at_end:
        return None
    return 16 * (outer[0] // chunks[0]) + 4 * (len(names) - 1)


def decoding_of(codecs: Sequence[Mapping[str, Any]]) -> tuple[str, str | None] | None:
    """Byte order and compressor of the codecs of a chunk; None if there are others."""
    names = [codec["name"] for codec in codecs]
    if names[0] != "bytes" or len(names) > 2 or not set(names[1:]) <= set(COMPRESSORS):
        return None
    endian = (codecs[0].get("configuration") or {}).get("endian", "little")
    return ("<" if endian == "little" else ">"), (names[1] if len(names) > 1 else None)
