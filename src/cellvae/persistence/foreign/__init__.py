"""Files of scvi-tools, read without running anything that stands in them."""

from cellvae.persistence.foreign.model_file import ForeignModel, indices, is_foreign, read_foreign
from cellvae.persistence.foreign.writer import write_foreign

__all__ = ["ForeignModel", "indices", "is_foreign", "read_foreign", "write_foreign"]
