"""Tensors in safetensors files: writing, comparing with a model, reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor

from cellvae.errors import FileFormatError, InvalidOptionError, quote_names
from cellvae.persistence.fsync import regular_file_size, write_and_fsync
from cellvae.persistence.safetensors_header import DTYPES, TensorSpec, damaged_error, parse_header

if TYPE_CHECKING:
    from pathlib import Path


def tensor_specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Type and shape of each tensor; tensors on the meta device are accepted."""
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a new file, bit by bit.

    Tensors on other devices, views, and tensors that share memory are each written in full.

    Parameters
    ----------
    path
        The file.
    tensors
        Tensors by name.
    metadata
        Texts that the file has beside them, by name.

    Raises
    ------
    InvalidOptionError
        If one has no values, is sparse, or is of a type that no model has.
    OSError
        If the file exists, or the disk is full.
    """
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        check_writable(name, tensor)
        dense = tensor.detach().to("cpu").contiguous()
        storage = dense.untyped_storage().data_ptr()
        plain[name] = dense.clone() if storage in storages else dense
        storages.add(storage)
    # By way of memory, because a full disk is then an OSError with its number.
    write_and_fsync(path, safetensors.torch.save(plain, None if metadata is None else {**metadata}))


def check_writable(name: str, tensor: Tensor) -> None:
    """Check that a tensor can be written and read again."""
    if name == "__metadata__":
        raise InvalidOptionError(
            "Expected any name but '__metadata__' for a tensor to save, which the file format "
            "keeps for itself. Rename the parameter or buffer."
        )
    if tensor.is_meta:
        raise InvalidOptionError(
            f"Expected tensors with values to save; got '{name}' on the meta device. "
            "Give the module its weights first."
        )
    if tensor.layout != torch.strided:
        raise InvalidOptionError(
            f"Expected dense tensors to save; got '{name}' with the layout {tensor.layout}. "
            "Convert it with `.to_dense()`."
        )
    if tensor.dtype not in DTYPES.values():
        raise InvalidOptionError(
            f"Expected real numbers or booleans to save; got '{name}' of {tensor.dtype}. "
            f"Convert it to one of {quote_names([str(dtype) for dtype in DTYPES.values()], 20)}."
        )


def check_tensors(
    header: Mapping[str, TensorSpec],
    expected: Mapping[str, TensorSpec],
    where: str = "weights.safetensors",
) -> None:
    """Check that a file holds exactly the tensors of a model.

    Parameters
    ----------
    header
        Tensors in the file, from `read_header`.
    expected
        Tensors of the model, from `specs` of its state.
    where
        Name of the file, for messages.

    Raises
    ------
    FileFormatError
        If tensors are missing, too many, or of another type or shape.
    """
    missing = [name for name in expected if name not in header]
    unexpected = [name for name in header if name not in expected]
    different = [name for name in expected if header.get(name, expected[name]) != expected[name]]
    parts = [f"missing {quote_names(missing)}"] if missing else []
    parts += [f"unexpected {quote_names(unexpected)}"] if unexpected else []
    parts += [f"'{name}' is {header[name]}, not {expected[name]}" for name in different[:5]]
    parts += [f"{len(different) - 5:,} more differ"] if len(different) > 5 else []
    if parts:
        raise FileFormatError(
            f"Expected the {len(expected):,} tensors of the model in {where}; {'; '.join(parts)}. "
            "The weights are of another model than model.json describes: use the two files that "
            "were saved together."
        )


def read_tensors(
    path: Path, device: str | torch.device = "cpu", *, sha256: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a file, each with its own memory.

    Parameters
    ----------
    path
        A safetensors file.
    device
        Where the tensors shall live.
    sha256
        Checksum that the very bytes that are read must have.

    Raises
    ------
    FileFormatError
        If the file is missing, cut, damaged, no safetensors file, or has another checksum.
    UnsafeFileError
        If it speaks of more than it holds, or of tensors that overlap.
    """
    regular_file_size(path)
    tensors = {}
    with path.open("rb") as file:
        header = parse_header(file, path)
        start = file.tell()
        file.seek(0)
        digest = hashlib.sha256(file.read(start))
        for name, spec in header.items():
            # Memory from torch has the alignment of any other weight: sums come out the same.
            tensors[name] = torch.empty(spec.shape, dtype=spec.dtype)
            values = tensors[name].reshape(-1).view(torch.uint8).numpy().data
            if file.readinto(values) != spec.n_bytes:
                raise damaged_error(path, "it was cut while it was read")
            digest.update(values)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise checksum_error(path)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def checksum_error(path: Path) -> FileFormatError:
    """Error for a file whose bytes differ from those that were saved."""
    return FileFormatError(
        f"Expected the bytes of {path} that model.json has the checksum of; got others. "
        "The file is damaged, or another model was saved over it since this one was opened: "
        "open it again, or copy the folder anew."
    )
