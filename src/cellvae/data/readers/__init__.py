"""Readers of file formats that AnnData does not read itself."""

from __future__ import annotations

from cellvae.data.readers.loom import read_loom
from cellvae.data.readers.tenx_matrices import read_10x_atac, read_10x_multiome

__all__ = ["read_10x_atac", "read_10x_multiome", "read_loom"]
