"""Folders of Cell Ranger ATAC and ARC, plain and compressed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import io, sparse

from cellvae.data import read_10x_atac, read_10x_multiome
from cellvae.errors import InvalidDataError

DENSE = np.array([[0, 2, 0], [1, 0, 4], [0, 0, 3], [5, 0, 0]])
"""Counts, [features, cells]."""


@pytest.fixture(params=["plain", "compressed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    io.mmwrite(tmp_path / "matrix.mtx", sparse.coo_matrix(DENSE))
    (tmp_path / "barcodes.tsv").write_text("AAC-1\nAAG-1\nAAC-2\n")
    peaks = ["chr1\t10\t20", "chr1\t30\t45", "chrX\t5\t9", "KI27.1\t1\t2"]
    (tmp_path / "peaks.bed").write_text("# id=run\n" + "\n".join(peaks) + "\n")
    genes = ["ENSG1\tNA\tGene Expression\tchr1\t100\t200", "ENSG2\tG2\tGene Expression\t\t\t"]
    regions = [
        f"{c}:{s}-{e}\t{c}:{s}-{e}\tPeaks\t{c}\t{s}\t{e}"
        for c, s, e in (("chr1", 10, 20), ("chrX", 5, 9))
    ]
    (tmp_path / "features.tsv").write_text("\n".join(genes + regions) + "\n")
    if request.param == "compressed":
        for path in [*tmp_path.iterdir()]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return tmp_path


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_accessibility_is_read(folder: Path) -> None:
    adata = read_10x_atac(folder)
    np.testing.assert_array_equal(adata.X.toarray(), DENSE.T)
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    assert adata.var_names.tolist() == ["chr1:10-20", "chr1:30-45", "chrX:5-9", "KI27.1:1-2"]
    assert adata.var["end"].tolist() == [20, 45, 9, 2] and adata.var_names.name is None
    assert adata.obs_names.tolist() == ["AAC", "AAG", "AAC"]
    assert adata.obs["batch_id"].tolist() == [1, 1, 2]


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_both_modalities_are_read(folder: Path) -> None:
    adata = read_10x_multiome(str(folder))
    np.testing.assert_array_equal(adata.X.toarray(), DENSE.T)
    assert adata.var_names.tolist() == ["NA", "G2", "chr1:10-20", "chrX:5-9"]
    assert [*adata.var] == ["ID", "modality", "chr", "start", "end"]
    assert adata.var["modality"].tolist() == ["Gene Expression"] * 2 + ["Peaks"] * 2
    assert adata.var["start"].fillna(-1).tolist() == [100, -1, 10, 5]
    assert adata.var["chr"].isna().tolist() == [False, True, False, False]


def test_files_that_are_missing_or_do_not_fit_are_named(folder: Path) -> None:
    name = next(path.name for path in folder.iterdir() if "barcodes" in path.name)
    (folder / name).unlink()
    (folder / "barcodes.tsv").write_text("AAC-1\nAAG-1\n")
    with pytest.raises(InvalidDataError, match="Expected 2 cells and 4 features.*got 3 and 4"):
        read_10x_atac(folder)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"'barcodes.tsv' or 'barcodes.tsv.gz'"):
        read_10x_multiome(folder)
    with pytest.raises(FileNotFoundError, match="it has no files"):
        read_10x_atac(folder / "none")
    for path in folder.glob("matrix*"):
        path.unlink()
    (folder / "barcodes.tsv").write_text("AAC-1\n")
    (folder / "matrix.mtx").write_text("no matrix")
    with pytest.raises(InvalidDataError, match="Matrix Market"):
        read_10x_atac(folder)
