"""Data sets as scvi-tools makes them of the same files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import io, sparse

import cellvae
from cellvae import data

PEER = Path(__file__).with_name("peer.py")


def dense(values: Any) -> np.ndarray:
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def write_folders(folder: Path) -> None:
    """Folders of Cell Ranger ATAC and ARC, as scvi-tools can read them: not compressed."""
    counts = sparse.coo_matrix(np.array([[0, 2], [1, 0], [0, 3], [5, 6]]))
    places = [("chr1", 10, 20), ("chr1", 30, 45), ("chrX", 5, 9), ("chrX", 6, 8)]
    for name in ("atac", "multiome"):
        (folder / name).mkdir()
        io.mmwrite(folder / name / "matrix.mtx", counts)
        (folder / name / "barcodes.tsv").write_text("AAC-1\nAAG-2\n")
    lines = ["\t".join(map(str, place)) for place in places]
    (folder / "atac" / "peaks.bed").write_text("\n".join(lines) + "\n")
    kinds = ["Gene Expression"] * 2 + ["Peaks"] * 2
    rows = [
        f"ID{n}\tF{n}\t{kind}\t{line}"
        for n, (kind, line) in enumerate(zip(kinds, lines, strict=True))
    ]
    (folder / "multiome" / "features.tsv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_every_data_set_is_that_of_scvi_tools(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = os.environ.get("CELLVAE_PEER_PYTHON")
    if not peer:
        pytest.skip("CELLVAE_PEER_PYTHON does not name a Python with scvi-tools")
    write_folders(folder)
    (tmp_path / "out").mkdir()
    command = [peer, PEER, folder, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setitem(cellvae.settings.values, "seed", 3)
    ours = {
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
        "tenx": data.dataset_10x("pbmc4k", save_path=folder, var_names="gene_ids"),
        "pbmc": data.pbmc_dataset(folder),
        "atac": data.read_10x_atac(folder / "atac"),
        "multiome": data.read_10x_multiome(folder / "multiome"),
    }
    both = ours["multiome"]
    parts = both[:, :2].copy(), both[:1, 2:].copy()
    ours["organized"] = data.organize_multiome_anndatas(both, *parts)
    cite = ours["tenx"].copy()
    cite.var["feature_types"] = ["Antibody Capture"] + ["Gene Expression"] * (cite.n_vars - 1)
    ours["proteins"] = data.organize_cite_seq_10x(cite, copy=True)  # type: ignore[assignment]
    there = {path.stem for path in (tmp_path / "out").iterdir()}
    assert {*ours} - there <= {"organized"}
    for name in there:
        assert_same(ours[name], anndata.read_h5ad(tmp_path / "out" / f"{name}.h5ad"), name)


def assert_same(adata: AnnData, other: AnnData, name: str) -> None:
    np.testing.assert_array_equal(dense(adata.X), dense(other.X), err_msg=name)
    assert sparse.issparse(adata.X) == sparse.issparse(other.X), name
    if not name.startswith("cite"):  # Ours are unique.
        assert adata.obs_names.tolist() == other.obs_names.tolist(), name
    if name != "smfish":  # scvi-tools loses the names.
        assert adata.var_names.tolist() == other.var_names.tolist(), name
    for column in other.obs:
        found, expected = adata.obs[column].to_numpy(), other.obs[column].to_numpy()
        assert (found == expected).all() or np.allclose(found, expected), (name, column)
    assert set(adata.obsm) == set(other.obsm), name
    for key, expected in other.obsm.items():
        found = adata.obsm[key]
        if hasattr(expected, "columns"):
            assert set(found.columns) == set(expected.columns), (name, key)
            found = found[list(expected.columns)]
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), err_msg=f"{name} {key}")
