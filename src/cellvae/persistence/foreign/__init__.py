"""Files of scvi-tools, read without running anything that stands in them."""

from cellvae.persistence.foreign.model_file import ForeignModel, indices, is_foreign, read_foreign
from cellvae.persistence.foreign.replace import check_other_format, remove_other_format
from cellvae.persistence.foreign.writer import write_foreign

__all__ = [
    "ForeignModel",
    "check_other_format",
    "indices",
    "is_foreign",
    "read_foreign",
    "remove_other_format",
    "write_foreign",
]
