"""AnnData in, blocks of batches out; and small data sets."""

from __future__ import annotations

from cellvae.data.cells import cell_numbers
from cellvae.data.datasets import pbmc68k_reduced
from cellvae.data.fragments import reads_to_fragments
from cellvae.data.keys import CountKeys, Keys, LabelKeys
from cellvae.data.registration import Registration
from cellvae.data.split import Split, split_cells
from cellvae.data.synthetic import synthetic_iid

__all__ = [
    "CountKeys",
    "Keys",
    "LabelKeys",
    "Registration",
    "Split",
    "cell_numbers",
    "pbmc68k_reduced",
    "reads_to_fragments",
    "split_cells",
    "synthetic_iid",
]
