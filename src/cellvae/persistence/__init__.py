"""Model files: a record as JSON, tensors as safetensors, and nothing that can run."""

from cellvae.persistence.header import Spec
from cellvae.persistence.record import FileRecord, Record
from cellvae.persistence.store import Saved, open_saved, save
from cellvae.persistence.weights import check_tensors, specs

__all__ = [
    "FileRecord",
    "Record",
    "Saved",
    "Spec",
    "check_tensors",
    "open_saved",
    "save",
    "specs",
]


def __dir__() -> list[str]:
    return sorted(__all__)
