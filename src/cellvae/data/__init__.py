"""AnnData in, blocks of batches out; and small data sets."""

from __future__ import annotations

from typing import Any

from cellvae.data.cells import cell_numbers
from cellvae.data.datasets import pbmc68k_reduced
from cellvae.data.fragments import reads_to_fragments
from cellvae.data.gene_selection import poisson_gene_selection
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
    "poisson_gene_selection",
    "reads_to_fragments",
    "split_cells",
    "synthetic_iid",
]

READERS = ("read_csv", "read_h5ad", "read_loom", "read_text")
"""Functions of anndata that scvi-tools has here too."""


def __getattr__(name: str) -> Any:
    if name not in READERS:
        raise AttributeError(f"module 'cellvae.data' has no attribute '{name}'")
    import anndata

    return anndata.read_h5ad if name == "read_h5ad" else getattr(anndata.io, name)
