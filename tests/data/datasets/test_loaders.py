"""What each data set is made of, on tiny files of the same formats."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cellvae
from cellvae import data
from cellvae.data.datasets.brain_large import read_brain_large
from cellvae.data.datasets.seurat import sum_antibodies
from cellvae.data.downloads.files import FILES
from cellvae.errors import DownloadError, InvalidDataError, InvalidOptionError, UnsafeFileError


def test_heart_cells_come_without_doublets(folder: Path) -> None:
    adata = data.heart_cell_atlas_subsampled(save_path=folder)
    assert adata.obs_names.tolist() == ["cell0", "cell3", "cell4", "cell7"]
    assert sparse.issparse(adata.X) and not adata.is_view
    assert data.heart_cell_atlas_subsampled(folder, remove_nuisance_clusters=False).n_obs == 8


def test_purified_cells_come_once_and_in_the_order_asked_for(folder: Path) -> None:
    assert data.purified_pbmc_dataset(folder).obs["batch"].tolist() == [*"0011222"]
    some = data.purified_pbmc_dataset(folder, subset_datasets=["cd34", "cd4_t_helper"])
    assert some.obs_names.tolist() == ["cell4", "cell5", "cell6", "cell0", "cell1"]
    assert sparse.issparse(some.X)
    with pytest.raises(InvalidOptionError, match=r"got 'b_cell'\. Did you mean 'b_cells'"):
        data.purified_pbmc_dataset(folder, subset_datasets=["b_cell"])


def test_files_that_need_nothing_are_read(folder: Path) -> None:
    found = [
        data.retina(folder),
        data.prefrontalcortex_starmap(folder),
        data.frontalcortex_dropseq(folder),
        data.annotation_simulation("2", folder),
        data.annotation_simulation(2, folder),  # type: ignore[arg-type]
    ]
    assert [adata.obs["labels"].iloc[0] for adata in found] == [0, 1, 2, 3, 3]
    with pytest.raises(InvalidOptionError, match="'1', '2' or '3'; got '4'"):
        data.annotation_simulation("4", folder)


def test_a_file_with_another_checksum_is_refused(folder: Path) -> None:
    (folder / "retina.h5ad").write_bytes((folder / "hca_subsampled_20k.h5ad").read_bytes())
    with pytest.raises(DownloadError, match="retina.h5ad' to have the SHA-256"):
        data.retina(folder)


def test_data_sets_are_downloaded_into_the_folder_of_the_variable(
    folder: Path, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "cache"))
    for name in ("hca_subsampled_20k.h5ad", "retina.h5ad"):
        served = server.file(name, (folder / name).read_bytes(), sha256=FILES[name].sha256)
        monkeypatch.setitem(FILES, name, served)
    assert data.heart_cell_atlas_subsampled().n_obs == 4
    assert data.retina().n_obs == 4
    assert data.retina().n_obs == 4
    assert server.requests == ["/hca_subsampled_20k.h5ad", "/retina.h5ad"]
    there = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert there == ["hca_subsampled_20k.h5ad", "hca_subsampled_20k.h5ad.sha256", "retina.h5ad"]


def test_osmfish_clusters_are_joined_to_cell_types(folder: Path) -> None:
    adata, raw = data.smfish(folder), data.smfish(folder, use_high_level_cluster=False)
    types = ["Astrocytes", "Inhibitory", "Pyramidals", "Endothelials"]
    assert adata.obs["str_labels"].tolist() == types * 2
    assert adata.obs["labels"].tolist() == [0, 2, 3, 1] * 2
    assert adata.uns["cell_types"].tolist() == sorted(types)
    assert adata.var_names.equals(raw.var_names)
    np.testing.assert_array_equal(adata.X, raw.X[[0, 1, 2, 3, 5, 6, 7, 8]])
    assert raw.n_obs == 10 and len(raw.uns["cell_types"]) == 5
    assert adata.obs["x_coord"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_the_table_of_cortex_is_parsed(folder: Path) -> None:
    adata = data.cortex(folder)
    assert adata.shape == (5, 3)
    assert adata.var_names.tolist() == ["Tspan12", "NA", "1700007P06Rik"]
    assert adata.obs["cell_type"].tolist() == ["oligo", "inter", "oligo", "pyr", "inter"]
    assert adata.obs["labels"].tolist() == [1, 0, 1, 2, 0]
    # Numbers of clusters sort as texts: 1, 10, 2.
    assert adata.obs["precise_labels"].tolist() == [2, 1, 2, 0, 1]
    assert isinstance(adata.X, np.ndarray) and adata.X.dtype == np.int32
    random = np.random.default_rng(4)
    np.testing.assert_array_equal(adata.X, random.integers(0, 4, (3, 5)).T)


@pytest.mark.parametrize("content", ["", "a\tb\n" * 20, "\t" * 7 + "\n"])
def test_another_table_is_no_cortex(folder: Path, content: str) -> None:
    (folder / "expression.bin").write_text(content)
    with pytest.raises(InvalidDataError, match="Expected the table of cortex cells"):
        data.cortex(folder)


def test_spots_have_no_batches(folder: Path) -> None:
    for adata in (data.breast_cancer_dataset(folder), data.mouse_ob_dataset(folder)):
        assert adata.obs_names.tolist() == ["1x2", "3x4", "5.5x6"]
        assert adata.obs["batch"].tolist() == adata.obs["labels"].tolist() == [0, 0, 0]
        np.testing.assert_array_equal(adata.X, np.random.default_rng(4).integers(0, 4, (3, 5)))


@pytest.mark.parametrize(
    ("join", "proteins"), [("inner", "CD3 CD4 CD8"), ("outer", "CD3 CD4 CD8 CD19")]
)
def test_two_experiments_with_proteins_are_put_together(
    folder: Path, join: Any, proteins: str
) -> None:
    adata = data.pbmcs_10x_cite_seq(folder, protein_join=join)
    assert adata.var_names.tolist() == ["gene0", "gene1", "gene3"]
    assert adata.obs["batch"].tolist() == ["PBMC10k"] * 3 + ["PBMC5k"] * 3
    assert adata.obs_names.is_unique and adata.obs_names[:3].tolist() == ["cell0", "cell1", "cell2"]
    table = adata.obsm["protein_expression"]
    assert set(table) == set(proteins.split())
    assert table["CD3"].tolist() == [0, 3, 6, 4, 8, 12]
    assert table["CD4"].tolist() == [1, 4, 7, 1, 5, 9]
    if join == "outer":
        assert table["CD19"].tolist() == [0, 0, 0, 3, 7, 11]
    parts = [anndata.read_h5ad(folder / f"pbmc_{n}k_protein_v3.h5ad") for n in (10, 5)]
    expected = np.vstack([part[:, adata.var_names].X.toarray() for part in parts])
    assert sparse.issparse(adata.X)
    np.testing.assert_array_equal(adata.X.toarray(), expected)


def test_spleen_and_lymph_nodes_come_without_outliers(folder: Path) -> None:
    adata = data.spleen_lymph_cite_seq(folder)
    assert adata.obs_names.tolist() == ["c111-0", "c111-3", "c208-0", "c208-3"]
    assert adata.obsm["protein_expression"].columns.tolist() == ["B"]
    assert adata.obsm["protein_expression"]["B"].tolist() == [1, 7, 0, 6]
    assert set(adata.obsm) == {"protein_expression", "isotypes_htos"}
    every = data.spleen_lymph_cite_seq(folder, protein_join="outer", remove_outliers=False)
    assert every.n_obs == 8
    assert every.obsm["protein_expression"]["C"].tolist() == [0, 0, 0, 0, 1, 3, 5, 7]
    with pytest.raises(InvalidOptionError, match=r"got 'iner'\. Did you mean 'inner'"):
        data.spleen_lymph_cite_seq(folder, protein_join="iner")  # type: ignore[arg-type]


def test_cells_of_the_vaccine_trial_are_filtered(folder: Path) -> None:
    adata = data.pbmc_seurat_v4_cite_seq(folder)
    # 0: few proteins, 1 and 2: few and many counts of proteins, 3: doublet, 5: mitochondrial.
    assert adata.obs_names.tolist() == [f"cell{n}" for n in (4, 6, 7, 8, 9, 10, 11)]
    proteins = adata.obsm["protein_counts"]
    assert {"CD3", "CD4-1", "Notch-1", "Notch-2", "TCR-1", "TCR-2", "HLA-A-2"} < set(proteins)
    assert "CD3-1" not in proteins and proteins.shape[1] == 167
    assert proteins["CD3"].tolist() == [2 * (20 + n) for n in (4, 6, 7, 8, 9, 10, 11)]
    first = adata.obs.iloc[0]
    assert first["Protein log library size"] == pytest.approx(np.log(168 * 24))
    assert first["pct_counts_mt"] == pytest.approx(100 / adata.X[0].sum())
    assert adata.var["mt"].tolist() == [True, False, False, False, False]
    raw = data.pbmc_seurat_v4_cite_seq(folder, apply_filters=False, aggregate_proteins=False)
    assert raw.n_obs == 12 and raw.obsm["protein_counts"].shape[1] == 168


def test_antibodies_are_added_up_only_in_pairs() -> None:
    table = pd.DataFrame([[1, 2, 4, 8]], columns=["A-1", "A-2", "B-2", "C"])
    assert sum_antibodies(table).to_dict("records") == [{"A": 3, "B-2": 4, "C": 8}]


def test_proteins_of_random_batches_can_be_masked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cellvae.settings.values, "seed", 3)
    adata = data.pbmc_seurat_v4_cite_seq(folder, apply_filters=False, mask_protein_batches=2)
    batches = sorted(set(adata.obs["orig.ident"]))
    masked = set(np.random.RandomState(3).permutation(batches)[:2])
    zero = (adata.obsm["protein_counts"] == 0).all(axis=1).to_numpy()
    assert set(adata.obs["orig.ident"][zero]) == masked and zero.sum() == 4
    with pytest.raises(InvalidOptionError, match="of at most 6, the number of batches"):
        data.pbmc_seurat_v4_cite_seq(folder, mask_protein_batches=7, apply_filters=False)
    with pytest.raises(InvalidOptionError, match="mask_protein_batches"):
        data.pbmc_seurat_v4_cite_seq(folder, mask_protein_batches=25)


@pytest.mark.parametrize("n_at_once", [3, 7, 100])
@pytest.mark.parametrize("most", [None, 10])
def test_brain_cells_are_read_in_parts(folder: Path, n_at_once: int, most: int | None) -> None:
    adata = data.brainlarge_dataset(
        folder, 10, max_cells_to_keep=most, n_genes_to_keep=3, loading_batch_size=n_at_once
    )
    with h5py.File(folder / "brain_large.h5") as file:
        group = file["mm10"]
        arrays = (group["data"][:], group["indices"][:], group["indptr"][:])
        dense = sparse.csc_matrix(arrays, shape=tuple(group["shape"][:])).T.toarray()
    genes = np.argsort(dense[:10].var(axis=0))[::-1][:3]
    kept = dense[:most][:, genes]
    kept = kept[(kept.sum(axis=1) > 1) & ((kept > 0).sum(axis=1) > 1)]
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), kept)
    assert len(kept) == (18 if most is None else 8)
    assert (adata.obs["batch"] == 0).all() and (adata.obs["labels"] == 0).all()


def test_brain_cells_refuse_numbers_and_files_that_cannot_be(folder: Path) -> None:
    with pytest.raises(InvalidOptionError, match="n_genes_to_keep"):
        data.brainlarge_dataset(folder, n_genes_to_keep=0)
    with pytest.raises(InvalidDataError, match="Expected one matrix of 10x Genomics"):
        read_brain_large(folder / "retina.h5ad", 10, None, 3, 10)


def test_blood_cells_get_their_types(folder: Path) -> None:
    adata = data.pbmc_dataset(folder)
    # Order of the metadata; AC-11 is not among the cells, AA-1 is the second batch's.
    assert adata.obs_names.tolist() == ["CC-1", "AA-1", "GG-1", "TT-1", "CA-1"]
    assert adata.obs["batch"].tolist() == [0, 1, 0, 1, 1]
    assert adata.var_names.tolist() == ["ENSG4", "ENSG2", "ENSG1"]
    assert adata.var["gene_symbols"].tolist() == ["S4", "S2", "S1"]
    assert adata.obs["labels"].tolist() == [2, 0, 1, 1, 2]
    assert adata.obs["str_labels"].iloc[:2].tolist() == ["NK cells", "B cells"]
    assert adata.uns["cell_types"].tolist() == ["B cells", "CD4 T cells", "NK cells"]
    assert adata.obsm["design"]["WPC1"].tolist() == [0, 1 / 8, 2 / 8, 3 / 8, 5 / 8]
    assert adata.obsm["raw_qc"]["num_umi"].tolist() == [0, 100, 200, 300, 500]
    assert adata.obsm["normalized_qc"]["num_umi"].tolist() == [0, 10, 20, 30, 50]
    assert adata.obsm["qc_pc"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [10, 11]]
    assert adata.obsm["design"].index.equals(adata.obs_names)
    batch = data.dataset_10x("pbmc4k", save_path=folder, var_names="gene_ids")
    np.testing.assert_array_equal(
        adata["AA-1"].X.toarray(), batch["AA-1", adata.var_names].X.toarray()
    )
    np.testing.assert_allclose(adata.var["n_counts"], adata.X.toarray().sum(axis=0))
    adata.write_h5ad(folder / "again.h5ad")
    assert sorted(path.name for path in (folder / "pbmc8k").iterdir()) == [
        "filtered_gene_bc_matrices.tar.gz"
    ]


def test_a_pickle_that_asks_for_more_than_tables_runs_nothing(folder: Path) -> None:
    witness = folder / "ran"
    hostile = f"cos\nsystem\n(S'touch {witness}'\ntR.".encode()
    (folder / "pbmc_metadata.pickle").write_bytes(hostile)
    with pytest.raises(UnsafeFileError, match=r"asks for 'os\.system'.*Nothing was run"):
        data.pbmc_dataset(folder)
    assert not witness.exists()


def test_cellxgene_files_are_read_or_fetched(
    folder: Path, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "https://cellxgene.cziscience.com/e/0041b9c3-6a49-4bf7-8514-9bc7190067a7.cxg/"
    monkeypatch.setitem(sys.modules, "cellxgene_census", None)
    with pytest.raises(ImportError, match="pip install cellxgene-census.*put it at"):
        data.cellxgene(page, save_path=tmp_path / "new")
    asked = []

    def download(identifier: str, to_path: str) -> None:
        asked.append(identifier)
        Path(to_path).write_bytes((folder / "retina.h5ad").read_bytes())

    census = types.SimpleNamespace(download_source_h5ad=download)
    monkeypatch.setitem(sys.modules, "cellxgene_census", census)
    adata = data.cellxgene(page, save_path=tmp_path / "new")
    assert adata.n_obs == 4  # type: ignore[union-attr]
    path = data.cellxgene(page, save_path=tmp_path / "new", return_path=True)
    assert path == str(tmp_path / "new" / "0041b9c3-6a49-4bf7-8514-9bc7190067a7.h5ad")
    assert asked == ["0041b9c3-6a49-4bf7-8514-9bc7190067a7"]
    url = server.file("some.h5ad", (folder / "smfish.h5ad").read_bytes()).urls[0]
    assert data.cellxgene(url, "mine.h5ad", tmp_path / "new").n_obs == 10  # type: ignore[union-attr]
    with pytest.raises(InvalidOptionError, match="Expected the address of a data set"):
        data.cellxgene("https://cellxgene.cziscience.com/collections")


def test_a_census_download_that_breaks_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(identifier: str, to_path: str) -> None:
        Path(to_path).write_bytes(b"half")
        raise ConnectionError("cut off")

    census = types.SimpleNamespace(download_source_h5ad=download)
    monkeypatch.setitem(sys.modules, "cellxgene_census", census)
    with pytest.raises(ConnectionError):
        data.cellxgene("https://cellxgene.cziscience.com/e/abc.cxg/", save_path=tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_damaged_h5ad_is_refused(folder: Path) -> None:
    whole = (folder / "hca_subsampled_20k.h5ad").read_bytes()
    (folder / "hca_subsampled_20k.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidDataError, match="hca_subsampled_20k.h5ad'; it cannot be read"):
        data.heart_cell_atlas_subsampled(folder)
