"""Published data sets by name."""

from __future__ import annotations

from cellvae.data.datasets.brain_large import brainlarge_dataset
from cellvae.data.datasets.cellxgene import cellxgene
from cellvae.data.datasets.cite_seq import pbmcs_10x_cite_seq, spleen_lymph_cite_seq
from cellvae.data.datasets.cortex import cortex
from cellvae.data.datasets.h5ad_files import (
    annotation_simulation,
    frontalcortex_dropseq,
    heart_cell_atlas_subsampled,
    prefrontalcortex_starmap,
    purified_pbmc_dataset,
    retina,
)
from cellvae.data.datasets.pbmc import pbmc_dataset
from cellvae.data.datasets.pbmc68k import pbmc68k_reduced
from cellvae.data.datasets.seurat import pbmc_seurat_v4_cite_seq
from cellvae.data.datasets.smfish import smfish
from cellvae.data.datasets.spots import breast_cancer_dataset, mouse_ob_dataset
from cellvae.data.datasets.tenx import dataset_10x

__all__ = [
    "annotation_simulation",
    "brainlarge_dataset",
    "breast_cancer_dataset",
    "cellxgene",
    "cortex",
    "dataset_10x",
    "frontalcortex_dropseq",
    "heart_cell_atlas_subsampled",
    "mouse_ob_dataset",
    "pbmc68k_reduced",
    "pbmc_dataset",
    "pbmc_seurat_v4_cite_seq",
    "pbmcs_10x_cite_seq",
    "prefrontalcortex_starmap",
    "purified_pbmc_dataset",
    "retina",
    "smfish",
    "spleen_lymph_cite_seq",
]
