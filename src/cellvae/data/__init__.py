"""Data: setup of an AnnData, batches for training, published data sets, and file readers."""

from __future__ import annotations

from typing import Any

from cellvae.data.batches.indexing import cell_indices
from cellvae.data.batches.mixing import mixing_entropy
from cellvae.data.batches.split import Split, split_cells
from cellvae.data.datasets import (
    annotation_simulation,
    brainlarge_dataset,
    breast_cancer_dataset,
    cellxgene,
    cortex,
    dataset_10x,
    frontalcortex_dropseq,
    heart_cell_atlas_subsampled,
    mouse_ob_dataset,
    pbmc68k_reduced,
    pbmc_dataset,
    pbmc_seurat_v4_cite_seq,
    pbmcs_10x_cite_seq,
    prefrontalcortex_starmap,
    purified_pbmc_dataset,
    retina,
    smfish,
    spleen_lymph_cite_seq,
)
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.files.open_cells import open_cells
from cellvae.data.fragments import reads_to_fragments
from cellvae.data.gene_selection import poisson_gene_selection
from cellvae.data.modalities import (
    organize_cite_seq_10x,
    organize_multimodal,
    organize_multiome_anndatas,
)
from cellvae.data.readers import read_10x_atac, read_10x_multiome, read_loom
from cellvae.data.setup.keys import CountKeys, Keys, LabelKeys
from cellvae.data.setup.registration import Registration
from cellvae.data.synthetic import synthetic_iid
from cellvae.errors import missing_name_error

__all__ = [
    "CellFiles",
    "CountKeys",
    "Keys",
    "LabelKeys",
    "Registration",
    "Split",
    "annotation_simulation",
    "brainlarge_dataset",
    "breast_cancer_dataset",
    "cell_indices",
    "cellxgene",
    "cortex",
    "dataset_10x",
    "frontalcortex_dropseq",
    "heart_cell_atlas_subsampled",
    "mixing_entropy",
    "mouse_ob_dataset",
    "open_cells",
    "organize_cite_seq_10x",
    "organize_multimodal",
    "organize_multiome_anndatas",
    "pbmc68k_reduced",
    "pbmc_dataset",
    "pbmc_seurat_v4_cite_seq",
    "pbmcs_10x_cite_seq",
    "poisson_gene_selection",
    "prefrontalcortex_starmap",
    "purified_pbmc_dataset",
    "read_10x_atac",
    "read_10x_multiome",
    "read_loom",
    "reads_to_fragments",
    "retina",
    "smfish",
    "spleen_lymph_cite_seq",
    "split_cells",
    "synthetic_iid",
]

READERS = ("read_csv", "read_h5ad", "read_text")
"""Functions of anndata that `scvi.data` has too."""


INSTEAD = {
    "AnnDataManager": "model.adata_manager has its methods",
    "AnnDataManagerValidationCheck": "setup_anndata checks what it reads",
    "AnnTorchDataset": "models read the cells of an AnnData themselves",
    "add_dna_sequence": (
        "no model here reads sequences yet; genomepy.Genome(name).get_seq(chr, start, end) returns "
        "those of adata.var"
    ),
    "fields": "the keys of a custom model are a dataclass derived from cellvae.data.Keys",
}
"""Names of `scvi.data` that do not exist here, and what to use instead."""


def __getattr__(name: str) -> Any:
    if name not in READERS:
        raise missing_name_error("cellvae.data", name, INSTEAD, __dir__())
    import anndata

    return anndata.read_h5ad if name == "read_h5ad" else getattr(anndata.io, name)


def __dir__() -> list[str]:
    return sorted([*__all__, *READERS])
