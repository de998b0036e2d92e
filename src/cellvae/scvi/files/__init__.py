"""Files of scvi-tools, read without running anything that stands in them."""

from cellvae.scvi.files.model_file import (
    ScviModelFile,
    first_table,
    is_scvi_model,
    read_scvi_model,
    split_indices,
)
from cellvae.scvi.files.model_writer import write_scvi_model
from cellvae.scvi.files.replace_format import check_other_format, remove_other_format

__all__ = [
    "ScviModelFile",
    "check_other_format",
    "first_table",
    "split_indices",
    "is_scvi_model",
    "read_scvi_model",
    "remove_other_format",
    "write_scvi_model",
]
