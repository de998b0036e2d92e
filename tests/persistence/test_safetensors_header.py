from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence.safetensors_header import DTYPES, MAX_HEADER_BYTES, TensorSpec, read_header
from cellvae.persistence.tensors import read_tensors, write_tensors

RawFile = Callable[..., Path]


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def test_the_header_agrees_with_what_safetensors_reads(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, weights)
    header = read_header(path)
    with safe_open(str(path), framework="pt") as file:
        assert set(header) == set(file.keys())
        for name, (dtype, shape) in header.items():
            assert DTYPES[file.get_slice(name).get_dtype()] == dtype
            assert file.get_slice(name).get_shape() == list(shape)


def test_a_spec_reads_like_a_tensor() -> None:
    assert str(TensorSpec(torch.bfloat16, (3, 4))) == "bfloat16 [3, 4]"


def test_metadata_of_other_writers_are_passed_over(raw_file: RawFile) -> None:
    path = raw_file({"__metadata__": {"format": "pt"}, "a": entry("U8", [2], 0, 2)}, b"\1\2")
    assert read_header(path) == {"a": TensorSpec(torch.uint8, (2,))}
    assert read_tensors(path)["a"].tolist() == [1, 2]


def test_tensors_are_listed_in_the_order_of_their_bytes(raw_file: RawFile) -> None:
    path = raw_file({"a": entry("U8", [1], 1, 2), "b": entry("U8", [1], 0, 1)}, b"\1\2")
    assert list(read_header(path)) == ["b", "a"]
    assert {name: x.item() for name, x in read_tensors(path).items()} == {"b": 1, "a": 2}


@pytest.mark.parametrize("content", [b"", b"\0", b"\1\0\0\0\0\0\0"])
def test_a_file_shorter_than_its_first_number_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"its {len(content)} bytes are fewer than the 8"):
        read_header(path)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**40, 2**63, 2**64 - 1])
def test_a_huge_header_is_not_read(raw_file: RawFile, length: int) -> None:
    with pytest.raises(UnsafeFileError, match=f"header of {length:,} bytes"):
        read_header(raw_file({}, length=length))


def test_a_cut_header_is_refused(raw_file: RawFile) -> None:
    with pytest.raises(FileFormatError, match="its header has 99 bytes, the whole file 10"):
        read_header(raw_file(b"{}", length=99))


@pytest.mark.parametrize(
    ("dtype", "shape", "offsets"),
    [
        ("F32", [10**6, 10**6], (0, 4 * 10**12)),
        ("F64", [10**12], (0, 8 * 10**12)),
        ("F32", [10**12], (0, 4)),
        ("F32", [2**40, 2**40], (0, 4)),
        ("F32", [2**64], (0, 0)),
    ],
)
def test_a_tensor_of_more_than_the_file_holds_is_refused_before_it_is_made(
    raw_file: RawFile, dtype: str, shape: list[int], offsets: tuple[int, int]
) -> None:
    path = raw_file({"a": entry(dtype, shape, *offsets)}, b"\0" * 4)
    with pytest.raises(FileFormatError):
        read_header(path)
    with pytest.raises(FileFormatError):
        read_tensors(path)


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**64], [1] * 33])
def test_shapes_that_cannot_be_addressed_are_refused_though_they_take_no_memory(
    raw_file: RawFile, shape: list[int]
) -> None:
    n_bytes = 0 if 0 in shape else 4
    path = raw_file({"a": entry("F32", shape, 0, n_bytes)}, b"\0" * n_bytes)
    with pytest.raises(UnsafeFileError, match="more numbers or dimensions in 'a'"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        (b"[]", FileFormatError, "not a JSON object"),
        (b"{", FileFormatError, "strict JSON in the header of"),
        (b'{"a": "\xff"}', FileFormatError, "not UTF-8"),
        (b"[" * 100_000, UnsafeFileError, "nesting in the header of"),
        ({"a": 1}, FileFormatError, "entry of 'a'"),
        ({"a": {**entry("U8", [4], 0, 4), "url": ""}}, FileFormatError, "entry of 'a'"),
        ({"a": entry("F4", [4], 0, 4)}, FileFormatError, "dtype 'F4'"),
        ({"a": entry(["F32"], [1], 0, 4)}, FileFormatError, "dtype"),
        ({"a": entry("U8", [-4], 0, 4)}, FileFormatError, "whole numbers from 0 up"),
        ({"a": entry("U8", [4.0], 0, 4)}, FileFormatError, "whole numbers from 0 up"),
        ({"a": entry("U8", [True, 4], 0, 4)}, FileFormatError, "whole numbers from 0 up"),
        ({"a": entry("U8", 4, 0, 4)}, FileFormatError, "whole numbers from 0 up"),
        ({"a": entry("U8", [4], 0)}, FileFormatError, "whole numbers from 0 up"),
        ({"a": entry("U8", [4], 4, 0)}, UnsafeFileError, "takes|to lie in"),
        ({"a": entry("U8", [3], 0, 4)}, UnsafeFileError, "or 3 bytes, and to lie in"),
        ({"a": entry("U8", [3], 0, 3)}, FileFormatError, "take 3 bytes, and 4 follow"),
        ({"a": entry("U8", [5], 0, 5)}, FileFormatError, "take 5 bytes, and 4 follow"),
        ({}, FileFormatError, "take 0 bytes, and 4 follow"),
        ({"a": entry("U8", [3], 1, 4)}, FileFormatError, "1 bytes between 'the header' and 'a'"),
        (
            {"a": entry("U8", [1], 0, 1), "b": entry("U8", [2], 2, 4)},
            FileFormatError,
            "1 bytes between 'a' and 'b' belong to no tensor",
        ),
        (
            {"a": entry("U8", [3], 0, 3), "b": entry("U8", [2], 2, 4)},
            UnsafeFileError,
            "the same bytes for 'a' and 'b'",
        ),
        (
            {"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)},
            UnsafeFileError,
            "the same bytes for 'a' and 'b'",
        ),
        (
            b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], "shape": [4]}}',
            FileFormatError,
            "'shape' twice",
        ),
    ],
)
def test_hostile_headers_are_refused(
    raw_file: RawFile, header: Any, error: type[Exception], message: str
) -> None:
    path = raw_file(header, b"\0" * 4)
    with pytest.raises(error, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_folder_or_pipe_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="ordinary file"):
        read_header(tmp_path)
    with pytest.raises(FileFormatError, match="Part of the model is missing"):
        read_header(tmp_path / "absent.safetensors")
