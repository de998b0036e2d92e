"""Spans of zarr arrays are those that zarr reads, whatever their layout; damage is an error."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvae.data.storage.matrix_files.zarr_rows import ZarrRows, open_zarr_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that zarr imports
    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

SPANS = [(0, 1), (3, 17), (17, 30), (95, 96), (200, 257)]
BLOSC = {"name": "blosc", "configuration": {"typesize": 4, "cname": "lz4", "clevel": 5}}
CODECS: dict[str, Any] = {
    "zstd": {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    "gzip": {"name": "gzip", "configuration": {"level": 5}},
    "blosc": BLOSC,
    "none": None,
}


def values_of(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def expected_of(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[first:end] for first, end in SPANS])


def write(path: Path, values: np.ndarray, **kwargs: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs that other programs may not know
        array = zarr.create_array(store=str(path), shape=values.shape, dtype=values.dtype, **kwargs)
        array[...] = values
    return path


def opened(path: Path) -> ZarrRows:
    rows = open_zarr_rows(path)
    assert rows is not None
    return rows


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
@pytest.mark.parametrize("shards", [None, (80,), (400,)])
@pytest.mark.parametrize("codec", [*CODECS])
def test_spans_of_format_3(
    tmp_path: Path, codec: str, shards: tuple[int, ...] | None, dtype: str
) -> None:
    values = values_of((257,), dtype)
    kwargs = {"chunks": (16,), "shards": shards, "compressors": CODECS[codec]}
    rows = opened(write(tmp_path / "a", values, **kwargs))
    read = rows.read_spans(SPANS)
    np.testing.assert_array_equal(read, expected_of(values))
    assert read.dtype == values.dtype
    assert rows.layout.chunk_rows == 16
    assert rows.layout.shard_rows == (16 if shards is None else shards[0])


@pytest.mark.parametrize("compressor", ["Blosc", "Zlib", "LZ4", "Zstd", None])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_spans_of_format_2(tmp_path: Path, compressor: str | None, dtype: str) -> None:
    import numcodecs

    values = values_of((257,), dtype)
    made = None if compressor is None else getattr(numcodecs, compressor)()
    path = write(tmp_path / "a", values, chunks=(16,), zarr_format=2, compressors=made)
    read = opened(path).read_spans(SPANS)
    np.testing.assert_array_equal(read, expected_of(values))
    assert read.dtype.isnative


@pytest.mark.parametrize("version", [2, 3])
def test_spans_of_chunks_of_whole_rows(tmp_path: Path, version: int) -> None:
    values = values_of((257, 5), "float32")
    shards = (80, 5) if version == 3 else None
    path = write(tmp_path / "a", values, chunks=(16, 5), shards=shards, zarr_format=version)
    np.testing.assert_array_equal(opened(path).read_spans(SPANS), expected_of(values))


UNSUPPORTED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "parts of rows": ((257, 6), {"chunks": (16, 3)}),
    "filters": ((257,), {"chunks": (16,), "compressors": [{"name": "crc32c"}]}),
    "index first": (
        (257,),
        {"chunks": (16,), "shards": {"shape": (80,), "index_location": "start"}},
    ),
}


@pytest.mark.parametrize("name", [*UNSUPPORTED])
def test_other_layouts_are_left_to_zarr(tmp_path: Path, name: str) -> None:
    shape, kwargs = UNSUPPORTED[name]
    path = write(tmp_path / "a", values_of(shape, "float32"), **kwargs)
    assert open_zarr_rows(path) is None
    assert open_zarr_rows(tmp_path / "nothing") is None


def test_the_index_of_a_shard_is_read_once(tmp_path: Path) -> None:
    values = values_of((257,), "float32")
    rows = opened(write(tmp_path / "a", values, chunks=(16,), shards=(400,)))
    rows.read_spans(SPANS)
    first = rows.indices[0]
    rows.read_spans(SPANS)
    assert rows.indices[0] is first
    assert [*rows.indices] == [0]


@pytest.mark.parametrize("shards", [None, (80,)])
def test_missing_and_damaged_chunks_are_errors(
    tmp_path: Path, shards: tuple[int, ...] | None
) -> None:
    values = values_of((257,), "float32")
    path = write(tmp_path / "a", values, chunks=(16,), shards=shards, compressors=None)
    chunk = path / "c" / "1"
    rows = opened(path)
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises((OSError, ValueError)):
        rows.read_spans([(80, 96), (16, 32)])
    chunk.unlink()
    with pytest.raises(FileNotFoundError, match="c/1"):
        opened(path).read_spans([(80, 96), (16, 32)])
    np.testing.assert_array_equal(rows.read_spans([(0, 3)]), values[:3])


def test_a_chunk_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    array = zarr.create_array(store=str(path), shape=(64,), dtype="f4", chunks=(8,), shards=(64,))
    array[8:64] = np.ones(56)
    rows = opened(path)
    np.testing.assert_array_equal(rows.read_spans([(8, 64)]), np.ones(56))
    with pytest.raises(OSError, match="chunk 0 of .* was not written"):
        rows.read_spans([(0, 8)])


def test_metadata_that_is_not_json_is_left_to_zarr(tmp_path: Path) -> None:
    path = write(tmp_path / "a", values_of((257,), "float32"), chunks=(16,))
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["codecs"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert open_zarr_rows(path) is None
    (path / "zarr.json").write_text("{")
    assert open_zarr_rows(path) is None
