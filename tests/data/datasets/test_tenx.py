"""Files of 10x Genomics: archives, HDF5, folders that are there, and hostile archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse

from cellvae.data import dataset_10x
from cellvae.data.downloads.tenx_files import RELEASES, VERSIONS, tenx_file
from cellvae.errors import (
    DataWarning,
    DownloadError,
    InvalidDataError,
    InvalidOptionError,
    UnknownOptionError,
    UnsafeFileError,
)


def archive_of(*files: str, content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write_h5(path: Path) -> np.ndarray:
    """File as Cell Ranger 3 writes it: two genes of one name, one protein, an empty cell."""
    dense = np.array([[3, 0, 1, 5], [0, 0, 0, 0], [1, 2, 0, 7]])
    matrix = sparse.csc_matrix(dense.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array([b"AA-1", b"CC-1", b"GG-1"])
        features = group.create_group("features")
        features["id"] = np.array([b"E1", b"E2", b"E3", b"CD3"])
        features["name"] = np.array([b"G", b"G", b"H", b"CD3_TotalSeqB"])
        kinds = [b"Gene Expression"] * 3 + [b"Antibody Capture"]
        features["feature_type"] = np.array(kinds)
        features["genome"] = np.array([b"GRCh38"] * 3 + [b""])
    return dense


def test_every_data_set_has_its_address() -> None:
    assert len(VERSIONS) == sum(len(release.names) for release in RELEASES.values()) == 38
    for name in VERSIONS:
        assert f"{name}," in str(dataset_10x.__doc__) or f"{name}." in str(dataset_10x.__doc__)
    file = tenx_file("pbmc8k", True)
    assert file.name == "pbmc8k/filtered_gene_bc_matrices.tar.gz"
    assert file.urls[0] == (
        "https://cf.10xgenomics.com/samples/cell-exp/2.1.0/pbmc8k/"
        "pbmc8k_filtered_gene_bc_matrices.tar.gz"
    )
    assert tenx_file("pbmc_1k_v3", False).name == "pbmc_1k_v3/raw_feature_bc_matrix.h5"
    with pytest.raises(InvalidOptionError, match=r"got 'pbmc_8k'\. Did you mean 'pbmc8k'"):
        dataset_10x("pbmc_8k")


@pytest.mark.parametrize("remove", [True, False])
def test_an_archive_is_read_and_kept_only_if_asked_for(folder: Path, remove: bool) -> None:
    adata = dataset_10x("pbmc8k", save_path=folder, remove_extracted_data=remove)
    assert adata.obs_names.tolist() == ["AA-1", "CC-1", "GG-1"]
    # No cell has a count of S3.
    assert adata.var_names.tolist() == ["S1", "S2", "S4"]
    assert sparse.issparse(adata.X)
    np.testing.assert_allclose(adata.obs["n_counts"], adata.X.toarray().sum(axis=1))
    np.testing.assert_allclose(adata.var["n_counts"], adata.X.toarray().sum(axis=0))
    there = sorted(path.name for path in (folder / "pbmc8k").iterdir())
    kept = [] if remove else ["filtered_gene_bc_matrices"]
    assert there == [*kept, "filtered_gene_bc_matrices.tar.gz"]
    if not remove:
        inside = folder / "pbmc8k" / "filtered_gene_bc_matrices" / "GRCh38"
        assert sorted(p.name for p in inside.iterdir()) == [
            "barcodes.tsv",
            "genes.tsv",
            "matrix.mtx",
        ]
        again = dataset_10x("pbmc8k", save_path=folder)
        np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())


def test_an_extracted_folder_does_for_the_archive(folder: Path) -> None:
    adata = dataset_10x("pbmc8k", save_path=folder)
    (folder / "pbmc8k" / "filtered_gene_bc_matrices.tar.gz").unlink()
    again = dataset_10x("pbmc8k", save_path=folder, var_names="gene_ids")
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    assert again.var_names[0] == "ENSG1"
    by_folder = dataset_10x(save_path=folder / "pbmc8k")
    np.testing.assert_array_equal(by_folder.X.toarray(), adata.X.toarray())


def test_what_is_filtered_is_not_taken_for_raw(
    folder: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_10x("pbmc8k", save_path=folder)
    gone = server.file("x", b"")._replace(name="pbmc8k/raw_gene_bc_matrices.tar.gz")
    gone = gone._replace(urls=(server.url("gone"),))
    monkeypatch.setattr("cellvae.data.datasets.tenx.tenx_file", lambda *arguments: gone)
    with pytest.raises(DownloadError, match="raw_gene_bc_matrices.tar.gz"):
        dataset_10x("pbmc8k", save_path=folder, return_filtered=False)


def test_an_h5_file_is_read_with_scanpys_arguments(tmp_path: Path, server: Any) -> None:
    dense = write_h5(tmp_path / "source.h5")
    url = server.file("raw/my.h5", (tmp_path / "source.h5").read_bytes()).urls[0]
    adata = dataset_10x(url=url, save_path=tmp_path / "new")
    assert (tmp_path / "new" / "my.h5").exists()
    assert adata.var_names.tolist() == ["G", "G-1", "H"] and adata.n_obs == 2
    np.testing.assert_array_equal(adata.X.toarray(), dense[[0, 2], :3])
    every = dataset_10x(filename="my.h5", save_path=tmp_path / "new", gex_only=False)
    assert every.var["feature_types"].tolist()[-1] == "Antibody Capture"
    assert server.requests == ["/raw/my.h5"]


def test_arguments_are_checked_before_anything_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match=r"'gex_olny'\. Did you mean 'gex_only'"):
        dataset_10x("pbmc_1k_v3", save_path=tmp_path, gex_olny=False)
    with pytest.raises(UnknownOptionError, match=r"read_10x_mtx\(\) has no argument 'genome'"):
        dataset_10x("pbmc8k", save_path=tmp_path, genome="hg19")


def test_words_that_are_not_used_are_told(folder: Path) -> None:
    with pytest.warns(DataWarning, match="filename='x.h5' is not used"):
        dataset_10x("pbmc8k", filename="x.h5", save_path=folder)


def test_a_missing_file_without_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="'my.h5'; got no address is known"):
        dataset_10x(filename="my.h5", save_path=tmp_path)
    with pytest.raises(InvalidDataError, match="Expected one folder with matrix.mtx"):
        dataset_10x(save_path=tmp_path)


@pytest.mark.parametrize("outside", ["../outside/matrix.mtx", "/outside/matrix.mtx"])
@pytest.mark.parametrize("remove", [True, False])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, outside: str, remove: bool) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar.gz").write_bytes(archive_of(outside))
    with pytest.raises(UnsafeFileError, match="Nothing was written"):
        dataset_10x(filename="a.tar.gz", save_path=tmp_path / "in", remove_extracted_data=remove)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "in"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive_of("a/readme.txt"), "Expected one matrix.mtx .* got none"),
        (archive_of("a/x/matrix.mtx", "a/y/matrix.mtx"), "got a/x, a/y"),
        (b"\x1f\x8b not at all", "cannot be read"),
        (archive_of("a/matrix.mtx", content=bytes(range(256)) * 99)[:200], "cannot be read"),
    ],
    # Archives hold the time at which they were made, and names of tests must not.
    ids=["none", "several", "damaged", "cut"],
)
def test_archives_without_one_matrix_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(InvalidDataError, match=message):
        dataset_10x(filename="a.tar.gz", save_path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
