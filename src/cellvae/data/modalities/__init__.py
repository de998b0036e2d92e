"""Conversion of multimodal data to the form that models read."""

from __future__ import annotations

from cellvae.data.modalities.cite_seq import organize_cite_seq_10x
from cellvae.data.modalities.multiome import organize_multimodal, organize_multiome_anndatas

__all__ = ["organize_cite_seq_10x", "organize_multimodal", "organize_multiome_anndatas"]
