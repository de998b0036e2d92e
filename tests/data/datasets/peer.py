"""Data sets by scvi-tools itself from files in a folder: run in its own environment by a test."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import scvi
from anndata import AnnData


def main() -> None:
    warnings.simplefilter("ignore")
    folder, out = sys.argv[1], Path(sys.argv[2])
    # The files are there, and have not the published checksums; so pooch need not be.
    pooch = types.ModuleType("pooch")
    pooch.retrieve = lambda fname, path, **others: str(Path(path) / fname)  # type: ignore
    sys.modules["pooch"] = pooch
    sys.modules.setdefault("requests", MagicMock())
    scvi.settings.seed = 3
    data, rare = scvi.data, {"return_filtered": True, "var_names": "gene_ids"}
    found = {
        "heart": data.heart_cell_atlas_subsampled(folder),
        "purified": data.purified_pbmc_dataset(folder, subset_datasets=["cd34", "b_cells"]),
        "retina": data.retina(folder),
        "starmap": data.prefrontalcortex_starmap(folder),
        "dropseq": data.frontalcortex_dropseq(folder),
        "simulation": data.annotation_simulation("2", folder),
        "smfish": data.smfish(folder),
        "cortex": data.cortex(folder),
        "breast": data.breast_cancer_dataset(folder),
        "bulb": data.mouse_ob_dataset(folder),
        "cite inner": data.pbmcs_10x_cite_seq(folder),
        "cite outer": data.pbmcs_10x_cite_seq(folder, protein_join="outer"),
        "spleen": data.spleen_lymph_cite_seq(folder, protein_join="outer"),
        "seurat": data.pbmc_seurat_v4_cite_seq(folder, mask_protein_batches=2),
        "tenx": data.dataset_10x("pbmc4k", save_path=folder, **rare),
        "pbmc": data.pbmc_dataset(folder),
        "atac": data.read_10x_atac(f"{folder}/atac"),
        "multiome": data.read_10x_multiome(f"{folder}/multiome"),
    }
    both = found["multiome"].copy()
    parts = [both[:, :2].copy(), both[:1, 2:].copy()]
    if hasattr(both, "concatenate"):  # anndata 0.13 has it no more, and scvi-tools 1.5.1 needs it.
        found["organized"] = data.organize_multiome_anndatas(both, *parts)
    cite = found["tenx"].copy()
    cite.var["feature_types"] = ["Antibody Capture"] + ["Gene Expression"] * (cite.n_vars - 1)
    found["proteins"] = data.organize_cite_seq_10x(cite, copy=True)
    for name, adata in found.items():
        plain(adata).write_h5ad(out / f"{name}.h5ad")


def plain(adata: AnnData) -> AnnData:
    """AnnData whose texts any version of anndata can write and read."""
    tables = [table for table in adata.obsm.values() if hasattr(table, "columns")]
    for table in (adata.obs, adata.var, *tables):
        table.index = table.index.astype(object)
        table.columns = table.columns.astype(object)
        for column in table:
            if np.asarray(table[column]).dtype.kind not in "biuf":
                table[column] = table[column].astype(object)
    adata.uns = {}
    return adata


if __name__ == "__main__":
    main()
