"""Table of the files of every data set: name in the cache, addresses, checksum."""

from __future__ import annotations

from typing import Final, NamedTuple

SCVERSE = "https://exampledata.scverse.org/scvi-tools"
YOSEF_LAB = "https://github.com/YosefLab/scVI-data/raw/master"
SPATIAL_RESEARCH = "https://www.spatialresearch.org/wp-content/uploads/2016/07"
LINNARSSON_LAB = "https://storage.googleapis.com/linnarsson-lab-www-blobs/blobs/cortex"
TENX = "https://cf.10xgenomics.com/samples/cell-exp"


class DatasetFile(NamedTuple):
    """A file of a published data set.

    Parameters
    ----------
    name
        Path of the file within the folder of the data, as scvi-tools has it.
    urls
        Addresses of the file, tried in this order.
    sha256
        SHA-256 of its content, if published; otherwise that of the first download is used.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


def from_scverse(name: str, sha256: str | None = None, *others: str) -> DatasetFile:
    """File that scverse serves under its name; further addresses are optional."""
    return DatasetFile(name, (f"{SCVERSE}/{name}", *others), sha256)


FILES: Final[dict[str, DatasetFile]] = {
    file.name: file
    for file in (
        from_scverse("hca_subsampled_20k.h5ad", None, f"{YOSEF_LAB}/hca_subsampled_20k.h5ad"),
        from_scverse("PurifiedPBMCDataset.h5ad", None, f"{YOSEF_LAB}/PurifiedPBMCDataset.h5ad"),
        from_scverse("pbmc_10k_protein_v3.h5ad", None, f"{YOSEF_LAB}/pbmc_10k_protein_v3.h5ad"),
        from_scverse("pbmc_5k_protein_v3.h5ad", None, f"{YOSEF_LAB}/pbmc_5k_protein_v3.h5ad"),
        from_scverse("sln_111.h5ad", None, f"{YOSEF_LAB}/sln_111.h5ad"),
        from_scverse("sln_208.h5ad", None, f"{YOSEF_LAB}/sln_208.h5ad"),
        from_scverse("pbmc_seurat_v4.h5ad"),
        from_scverse(
            "retina.h5ad",
            "5363642ff02647d6868494b962ec962a5d2e3d90703415e245e7c1727c66cf21",
        ),
        from_scverse(
            "mpfc-starmap.h5ad",
            "c583eaef3835960405c6f1124f5fda36da80db3f940b76c9b2432a8d2e0b80ce",
        ),
        from_scverse(
            "fc-dropseq.h5ad",
            "934a7179624a4c7c7dec1d5d53de5367fcd0054e5f19b7e245ecf2ecc88c188c",
        ),
        from_scverse(
            "smfish.h5ad",
            "a6bba682cf6804e4c1db07cbd2cb16a08143e0b814fd1bd1f936596aa1e27fd1",
        ),
        from_scverse(
            "simulation_1.h5ad",
            "5d604adce93b3034885646605c2e9a72f5ccf8163caffb2930485f93a9fcb3a3",
        ),
        from_scverse(
            "simulation_2.h5ad",
            "fdc2fb7c78e4c2a32877eb22aaed7cc627e22b256f122be670188c1069f741fa",
        ),
        from_scverse(
            "simulation_3.h5ad",
            "58c11e8c4134175c3f525f0d823a12420493cdf545f3904e0f09bec479c31e55",
        ),
        from_scverse(
            "Layer2_BC_count_matrix-1.tsv",
            None,
            f"{SPATIAL_RESEARCH}/Layer2_BC_count_matrix-1.tsv",
        ),
        from_scverse(
            "Rep11_MOB_count_matrix-1.tsv",
            None,
            f"{SPATIAL_RESEARCH}/Rep11_MOB_count_matrix-1.tsv",
        ),
        DatasetFile(
            "expression.bin",
            (
                f"{SCVERSE}/expression_mRNA_17-Aug-2014.txt",
                f"{LINNARSSON_LAB}/expression_mRNA_17-Aug-2014.txt",
            ),
        ),
        DatasetFile(
            "brain_large.h5",
            (
                f"{SCVERSE}/1M_neurons_filtered_gene_bc_matrices_h5.h5",
                f"{TENX}/1.3.0/1M_neurons/1M_neurons_filtered_gene_bc_matrices_h5.h5",
            ),
        ),
        DatasetFile("gene_info_pbmc.csv", (f"{YOSEF_LAB}/gene_info.csv",)),
        DatasetFile("pbmc_metadata.pickle", (f"{YOSEF_LAB}/pbmc_metadata.pickle",)),
    )
}
"""Files of the data sets by name; those of 10x Genomics are in `tenx_files.py`."""
