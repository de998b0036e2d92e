"""Files of scvi-tools, read without running anything that stands in them."""

from cellvae.persistence.foreign.model_file import ForeignModel, indices, is_foreign, read_foreign

__all__ = ["ForeignModel", "indices", "is_foreign", "read_foreign"]
