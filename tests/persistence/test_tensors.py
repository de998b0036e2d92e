from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cellvae.errors import FileFormatError, InvalidOptionError
from cellvae.persistence.safetensors_header import DTYPES, TensorSpec, read_header
from cellvae.persistence.tensors import check_tensors, read_tensors, tensor_specs, write_tensors


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same_bits(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        assert bits(got[name]) == bits(tensor), name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


def test_every_bit_pattern_of_16_bit_floats_survives(path: Path) -> None:
    words = torch.arange(2**16).to(torch.int32).to(torch.uint16)
    tensors = {"bf16": words.view(torch.bfloat16), "f16": words.view(torch.float16)}
    assert tensors["bf16"].isnan().sum() == 2 * 127
    write_tensors(path, tensors)
    assert_same_bits(read_tensors(path), tensors)


def test_payloads_of_nan_and_signs_of_zero_survive(path: Path) -> None:
    singles = torch.tensor([0x7F800001, 0x7FC12345, -0x3EDCBB, -(2**31), 0], dtype=torch.int32)
    doubles = torch.tensor([0x7FF0000000000001, -1, -(2**63)], dtype=torch.int64)
    tensors = {"f32": singles.view(torch.float32), "f64": doubles.view(torch.float64)}
    write_tensors(path, tensors)
    assert_same_bits(read_tensors(path), tensors)


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
def test_every_type_and_shape_survives(path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    tensors = {
        str(shape): torch.randint(0, 2, shape).to(dtype)
        for shape in [(), (1,), (3,), (2, 3, 5), (0,), (3, 0, 2)]
    }
    write_tensors(path, tensors)
    assert_same_bits(read_tensors(path), tensors)
    assert read_header(path).keys() == tensors.keys()
    assert dict(read_header(path)) == tensor_specs(tensors)


def test_no_tensors_at_all_survive(path: Path) -> None:
    write_tensors(path, {})
    assert read_tensors(path) == {}


def test_views_transposes_and_shared_tensors_are_written_in_full(path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "whole": whole,
        "same": whole,
        "transposed": whole.T,
        "row": whole[1],
        "column": whole[:, 2],
        "strided": whole[::2, ::3],
        "expanded": torch.ones(1).expand(5),
        "parameter": torch.nn.Parameter(whole[0] * 2),
    }
    write_tensors(path, tensors)
    assert_same_bits(read_tensors(path), {name: x.detach() for name, x in tensors.items()})
    assert torch.equal(whole, torch.arange(24.0).reshape(4, 6))


def test_a_view_of_a_large_tensor_does_not_drag_it_along(path: Path) -> None:
    write_tensors(path, {"view": torch.zeros(100_000)[:3]})
    assert path.stat().st_size < 200


def test_state_of_a_module_with_tied_weights_and_counters_survives(path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    module.append(module[0])
    module(torch.randn(5, 3))
    state = module.state_dict()
    write_tensors(path, state)
    got = read_tensors(path)
    assert_same_bits(got, state)
    assert got["1.num_batches_tracked"].dtype == torch.int64
    assert got["1.num_batches_tracked"].shape == ()
    module.load_state_dict(got, strict=True)


def test_tensors_read_have_memory_of_their_own_and_can_be_changed(path: Path) -> None:
    write_tensors(path, {"a": torch.ones(3), "b": torch.ones(3)})
    got = read_tensors(path)
    got["a"] += 1
    assert {tensor.data_ptr() % 64 for tensor in got.values()} == {0}
    assert got["b"].tolist() == [1, 1, 1]
    assert read_tensors(path)["a"].tolist() == [1, 1, 1]


def test_the_file_is_one_that_safetensors_reads_and_the_other_way_round(
    path: Path, weights: dict[str, Tensor]
) -> None:
    write_tensors(path, weights)
    assert_same_bits(safetensors.torch.load_file(str(path)), weights)
    path.unlink()
    safetensors.torch.save_file(weights, str(path), metadata={"format": "pt"})
    assert_same_bits(read_tensors(path), weights)


def test_same_tensors_give_the_same_bytes(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_tensors(tmp_path / "a", weights)
    write_tensors(tmp_path / "b", dict(reversed(weights.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("w", torch.empty(3, device="meta"), "'w' on the meta device"),
        ("w", torch.eye(3).to_sparse(), "'w' with the layout torch.sparse_coo"),
        ("w", torch.zeros(3, dtype=torch.complex64), "'w' of torch.complex64"),
        ("__metadata__", torch.zeros(3), "any name but '__metadata__'"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(
    path: Path, name: str, tensor: Tensor, message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        write_tensors(path, {name: tensor})
    assert not path.exists()


def test_a_file_that_is_there_is_never_written_over(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_tensors(path, {"a": torch.ones(1)})
    assert path.read_text() == "mine"


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    write_tensors(path, {"w": torch.randn(2), "n": torch.tensor(17)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match="w.safetensors"):
            read_tensors(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(FileFormatError, match="follow the header"):
        read_tensors(path)


def test_no_changed_byte_gets_past_the_checksum_or_raises_anything_else(path: Path) -> None:
    write_tensors(path, {"w": torch.randn(2), "n": torch.tensor(17)})
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    read_tensors(path, sha256=sha256)
    n_refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match="w.safetensors"):
            read_tensors(path, sha256=sha256)
        try:
            read_tensors(path)
        except FileFormatError:
            n_refused += 1
    # A change of the 16 bytes of values is a valid file with other values.
    assert 40 < n_refused <= len(content) - 16


def test_matching_tensors_pass_even_on_the_meta_device(
    path: Path, weights: dict[str, Tensor]
) -> None:
    write_tensors(path, weights)
    check_tensors(read_header(path), tensor_specs({n: x.to("meta") for n, x in weights.items()}))


def test_every_difference_between_file_and_model_is_named() -> None:
    f32, i64 = torch.float32, torch.int64
    header = {
        "same": TensorSpec(f32, (2,)),
        "extra": TensorSpec(f32, (1,)),
        "shape": TensorSpec(f32, (50,)),
    }
    expected = {
        "same": TensorSpec(f32, (2,)),
        "gone": TensorSpec(f32, ()),
        "shape": TensorSpec(i64, (40,)),
    }
    with pytest.raises(FileFormatError) as caught:
        check_tensors(header, expected, "w.safetensors")
    message = str(caught.value)
    assert message.startswith(
        "Expected the 3 tensors of the model in w.safetensors; missing 'gone'; unexpected "
        "'extra'; 'shape' is float32 [50], not int64 [40]. "
    )


def test_a_long_list_of_differences_is_cut() -> None:
    expected = {f"w{i}": TensorSpec(torch.float32, (i,)) for i in range(30)}
    with pytest.raises(FileFormatError, match="and 25 more"):
        check_tensors({}, expected)
    header = {name: TensorSpec(torch.float64, shape) for name, (_, shape) in expected.items()}
    with pytest.raises(FileFormatError, match="25 more differ"):
        check_tensors(header, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_go_to_and_come_from_the_device(path: Path, weights: dict[str, Tensor]) -> None:
    write_tensors(path, {name: x.cuda() for name, x in weights.items()})
    got = read_tensors(path, "cuda")
    assert {x.device.type for x in got.values()} == {"cuda"}
    assert_same_bits({name: x.cpu() for name, x in got.items()}, weights)
