"""Model files: a record as JSON, tensors as safetensors, and nothing that can run."""

from cellvae.persistence.record import FileRecord, Record
from cellvae.persistence.safetensors_header import TensorSpec
from cellvae.persistence.store import SavedFiles, open_saved, save_model_files
from cellvae.persistence.tensors import check_tensors, tensor_specs

__all__ = [
    "FileRecord",
    "Record",
    "SavedFiles",
    "TensorSpec",
    "check_tensors",
    "open_saved",
    "save_model_files",
    "tensor_specs",
]


def __dir__() -> list[str]:
    return sorted(__all__)
