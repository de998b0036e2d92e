"""Parts of chunks that are compressed by Blosc, which are decompressed block by block."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER = struct.Struct("<BBBBIII")
"""Format version, version of the compressor, flags, bytes of a value; bytes before compression,
bytes of a block before compression, bytes after compression (README_CHUNK_FORMAT of c-blosc)."""
FORMAT_VERSION = 2
NOT_COMPRESSED = 0b10
"""Flag of a chunk whose bytes follow the header as they are."""


class StoredChunk(NamedTuple):
    """Where the bytes of a chunk are: a part of a file, or all of it."""

    path: Path
    offset: int
    length: int
    n_bytes: int
    """Bytes of the chunk when it is decompressed."""

    def read_part(self, file: BinaryIO, first: int, length: int) -> bytes:
        """Some of the bytes, from the opened file.

        Raises
        ------
        ValueError
            If the file ends before.
        """
        file.seek(self.offset + first)
        part = file.read(length)
        if len(part) != length:
            raise ValueError(f"'{self.path}' ends within a chunk.")
        return part

    def check_size(self, n_bytes: int) -> None:
        """Raise a ValueError if the chunk has another number of bytes when it is decompressed."""
        if n_bytes != self.n_bytes:
            raise ValueError(
                f"a chunk of '{self.path}' has {n_bytes:,} bytes instead of {self.n_bytes:,}."
            )


def decompress_part(chunk: StoredChunk, first: int, end: int) -> memoryview:
    """Bytes of a chunk from `first` to before `end`, decompressed.

    A chunk of Blosc consists of blocks that are compressed each by itself. Those that are needed
    are read and decompressed as a chunk of their own; numcodecs decompresses whole chunks only.

    Raises
    ------
    ValueError
        If the file ends before its chunk does, or the chunk has another size.
    RuntimeError
        If the chunk is damaged.
    """
    with chunk.path.open("rb") as file:
        header = chunk.read_part(file, 0, HEADER.size)
        version, *_, flags, _, n_bytes, block_size, n_stored = HEADER.unpack(header)
        chunk.check_size(n_bytes)
        if n_stored != chunk.length:
            raise ValueError(f"'{chunk.path}' has not all {n_stored:,} bytes of a chunk.")
        if flags & NOT_COMPRESSED:
            return memoryview(chunk.read_part(file, HEADER.size + first, end - first))
        if version != FORMAT_VERSION or not 0 < block_size < n_bytes:
            return decompress(chunk.read_part(file, 0, n_stored))[first:end]
        n_blocks = -(-n_bytes // block_size)
        table = chunk.read_part(file, HEADER.size, 4 * n_blocks)
        low, high = first // block_size, -(-end // block_size)
        if high == n_blocks:
            # The last block is shorter and stored in another way, which a block before it tells.
            low = min(low, n_blocks - 2)
        starts = np.frombuffer(table, dtype="<u4").astype(np.int64)
        blocks = [
            chunk.read_part(file, start, size)
            for start, size in zip(
                starts[low:high].tolist(), block_sizes(starts, n_stored)[low:high], strict=True
            )
        ]
    n_selected = min(high * block_size, n_bytes) - low * block_size
    begin = low * block_size
    return decompress(join_blocks(header, blocks, n_selected))[first - begin : end - begin]


def block_sizes(starts: NDArray[np.int64], n_stored: int) -> list[int]:
    """Bytes of each compressed block, by where they start: in any order, without gaps."""
    ordered = np.append(np.sort(starts), n_stored)
    sizes: list[int] = (ordered[np.searchsorted(ordered, starts) + 1] - starts).tolist()
    return sizes


def join_blocks(header: bytes, blocks: list[bytes], n_bytes: int) -> bytes:
    """Chunk of consecutive blocks of another one, which have `n_bytes` when decompressed."""
    *same, _, block_size, _ = HEADER.unpack(header)
    ends = HEADER.size + 4 * len(blocks) + np.cumsum([len(block) for block in blocks])
    starts = np.concatenate([[HEADER.size + 4 * len(blocks)], ends[:-1]])
    parts = [HEADER.pack(*same, n_bytes, block_size, int(ends[-1])), starts.astype("<u4").tobytes()]
    return b"".join([*parts, *blocks])


def decompress(encoded: bytes) -> memoryview:
    """Bytes of a whole chunk."""
    import numcodecs

    return memoryview(numcodecs.get_codec({"id": "blosc"}).decode(encoded))
