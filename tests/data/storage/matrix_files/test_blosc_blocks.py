"""Parts of a Blosc chunk equal those of the whole chunk, and only their blocks are decompressed."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvae.data.storage.matrix_files import blosc_blocks
from cellvae.data.storage.matrix_files.blosc_blocks import StoredChunk, decompress_part

numcodecs = pytest.importorskip("numcodecs", reason="numcodecs is not installed")

BLOCK = 4096
VALUES = np.random.default_rng(0).poisson(2.0, 50_003).astype(np.float32)
N_BYTES = VALUES.nbytes
RANGES = [
    (0, 1),
    (0, N_BYTES),
    (4095, 4097),
    (8192, 12288),
    (N_BYTES - 3, N_BYTES),
    (39_000, 39_500),
]


def stored(path: Path, before: bytes = b"", **kwargs: Any) -> StoredChunk:
    encoded = numcodecs.Blosc(**{"blocksize": BLOCK, "cname": "zstd", **kwargs}).encode(VALUES)
    path.write_bytes(before + encoded + b"more")
    return StoredChunk(path, len(before), len(encoded), N_BYTES)


def block_size(chunk: StoredChunk) -> int:
    return struct.unpack("<I", chunk.path.read_bytes()[chunk.offset + 8 :][:4])[0]


@pytest.mark.parametrize("shuffle", [0, 1, 2])
@pytest.mark.parametrize("compressor", ["lz4", "zstd", "blosclz", "zlib"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_parts_equal_those_of_the_whole(
    tmp_path: Path, compressor: str, shuffle: int, n_threads: int
) -> None:
    # With threads, blocks are stored in the order in which they were done.
    before = numcodecs.blosc.set_nthreads(n_threads)
    try:
        chunk = stored(tmp_path / "a", b"shard", cname=compressor, shuffle=shuffle)
        assert block_size(chunk) < N_BYTES / 2
        for first, end in RANGES:
            part = decompress_part(chunk, first, end)
            assert bytes(part) == VALUES.tobytes()[first:end]
    finally:
        numcodecs.blosc.set_nthreads(before)


@pytest.mark.parametrize(
    "kwargs", [{"clevel": 0}, {"blocksize": 0}, {"blocksize": N_BYTES}, {"blocksize": N_BYTES // 2}]
)
def test_chunks_without_blocks(tmp_path: Path, kwargs: dict[str, Any]) -> None:
    chunk = stored(tmp_path / "a", **kwargs)
    for first, end in RANGES:
        assert bytes(decompress_part(chunk, first, end)) == VALUES.tobytes()[first:end]


def test_only_the_blocks_of_a_part_are_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def decompress(encoded: bytes) -> memoryview:
        sizes.append(struct.unpack("<I", encoded[4:8])[0])
        return memoryview(numcodecs.Blosc().decode(encoded))

    monkeypatch.setattr(blosc_blocks, "decompress", decompress)
    chunk = stored(tmp_path / "a")
    decompress_part(chunk, 5000, 5100)
    decompress_part(chunk, 8000, 8200)
    decompress_part(chunk, N_BYTES - 1, N_BYTES)  # of the last block, which is shorter
    assert sizes == [BLOCK, 2 * BLOCK, BLOCK + N_BYTES % BLOCK]


def test_blocks_in_any_order(tmp_path: Path) -> None:
    encoded = numcodecs.Blosc(blocksize=BLOCK, cname="zstd").encode(VALUES)
    n_blocks = -(-N_BYTES // BLOCK)
    starts = np.frombuffer(encoded, "<u4", n_blocks, 16).astype(int)
    ends = [*starts[1:].tolist(), len(encoded)]
    body, moved = b"", np.zeros(n_blocks, "<u4")
    for block in range(n_blocks)[::-1]:
        moved[block] = 16 + 4 * n_blocks + len(body)
        body += encoded[starts[block] : ends[block]]
    reversed_blocks = encoded[:16] + moved.tobytes() + body
    assert numcodecs.Blosc().decode(reversed_blocks) == VALUES.tobytes()
    path = tmp_path / "a"
    path.write_bytes(reversed_blocks)
    chunk = StoredChunk(path, 0, len(encoded), N_BYTES)
    for first, end in RANGES:
        assert bytes(decompress_part(chunk, first, end)) == VALUES.tobytes()[first:end]


def test_damaged_chunks_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a"
    chunk = stored(path)
    encoded = path.read_bytes()
    with pytest.raises(ValueError, match="has 200,012 bytes instead of 200,008"):
        decompress_part(chunk._replace(n_bytes=N_BYTES - 4), 0, 4)
    with pytest.raises(ValueError, match="has not all"):
        decompress_part(chunk._replace(length=chunk.length - 1), 0, 4)
    path.write_bytes(encoded[: chunk.length // 2])
    with pytest.raises(ValueError, match="ends within a chunk"):
        decompress_part(chunk, N_BYTES - 4, N_BYTES)
    path.write_bytes(encoded[:100] + b"\xff" * (len(encoded) - 100))
    with pytest.raises((RuntimeError, ValueError)):
        decompress_part(chunk, 0, 5000)
