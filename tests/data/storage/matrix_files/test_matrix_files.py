"""Count matrices in files: what is read is what was written, and damage is named."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellvae.data.storage.matrix_files.csr_rows import CSRRows
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.data.storage.matrix_files.open_matrix import FileElement, open_matrix
from cellvae.errors import InvalidDataError, UnknownKeyError

N_CELLS, N_GENES = 400, 37


def counts(seed: int = 0, n_cells: int = N_CELLS, n_genes: int = N_GENES) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.4, (n_cells, n_genes)).astype(np.float32)
    dense[7] = 0
    return dense


def dense_of(rows: CSRRows, n_genes: int = N_GENES) -> np.ndarray:
    shape = (rows.n_cells, n_genes)
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape).toarray()


def write(path: Path, matrix: Any, **kwargs: Any) -> Path:
    names = pd.Index([f"g{i}" for i in range(matrix.shape[1])])
    adata = anndata.AnnData(matrix, var=pd.DataFrame(index=names), layers={"counts": matrix})
    if path.suffix == ".zarr":
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, **kwargs)
    return path


FORMS = {
    "csr": sparse.csr_matrix,
    "csr_int": lambda x: sparse.csr_matrix(x.astype(np.int64)),
    "dense": np.asarray,
    "float64": lambda x: sparse.csr_matrix(x.astype(np.float64)),
    "array": sparse.csr_array,
}


@pytest.mark.parametrize("layout", [*FORMS])
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_reads_the_cells_that_were_written(
    tmp_path: Path, layout: str, compression: str | None
) -> None:
    dense = counts()
    path = write(tmp_path / "a.h5ad", FORMS[layout](dense), compression=compression)
    matrix = open_matrix(path)
    for cells in ([0], [7], [3, 4, 5, 6, 9, 200, 399], range(N_CELLS), []):
        chosen = np.array(cells, dtype=np.int64)
        rows = JoinedMatrix([matrix], [None], N_GENES).read(chosen)
        np.testing.assert_array_equal(dense_of(rows), dense[chosen])
    assert (matrix.n_cells, matrix.n_genes) == dense.shape


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("version", [2, 3])
def test_reads_both_formats_of_zarr(tmp_path: Path, layout: str, version: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that zarr imports
        pytest.importorskip("zarr")
        if not hasattr(anndata.settings, "zarr_write_format"):
            pytest.skip("this AnnData writes one format of zarr")
    dense = counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the format that will be the default
        with anndata.settings.override(zarr_write_format=version):
            path = write(tmp_path / "a.zarr", FORMS[layout](dense))
    chosen = np.array([1, 2, 3, 90, 91, 300])
    np.testing.assert_array_equal(dense_of(open_matrix(path).read(chosen)), dense[chosen])
    np.testing.assert_array_equal(dense_of(open_matrix(path, "counts").read(chosen)), dense[chosen])


def test_unsorted_and_repeated_genes_become_canonical(tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(counts())
    path = write(tmp_path / "a.h5ad", matrix)
    with h5py.File(path, "r+") as file:
        data, indices = file["X/data"], file["X/indices"]
        first, end = (int(n) for n in matrix.indptr[3:5])
        data[first:end] = data[first:end][::-1]
        indices[first:end] = indices[first:end][::-1]
        indices[int(matrix.indptr[5]) + 1] = int(indices[int(matrix.indptr[5])])
    expected = sparse.csr_matrix(
        (h5py.File(path)["X/data"][:], h5py.File(path)["X/indices"][:], matrix.indptr), matrix.shape
    ).toarray()
    rows = JoinedMatrix([open_matrix(path)], [None], N_GENES).read(np.arange(N_CELLS))
    np.testing.assert_array_equal(dense_of(rows), expected)
    built = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), matrix.shape)
    assert built.has_canonical_format


def test_several_files_are_one_matrix_with_genes_by_name(tmp_path: Path) -> None:
    first, second = counts(1), counts(2, 50, 20)
    paths = [
        write(tmp_path / "a.h5ad", sparse.csr_matrix(first)),
        write(tmp_path / "b.h5ad", second),
    ]
    new_index = np.array([*range(19, 9, -1), *([-1] * 27)], dtype=np.int32)
    joined = JoinedMatrix(
        [open_matrix(path) for path in paths], [new_index, np.arange(20, dtype=np.int32)], 20
    )
    expected = np.zeros((N_CELLS + 50, 20), np.float32)
    expected[:N_CELLS, 10:] = first[:, 9::-1]
    expected[N_CELLS:] = second
    cells = np.array([0, 5, 399, 400, 449])
    np.testing.assert_array_equal(dense_of(joined.read(cells), 20), expected[cells])
    assert joined.shape == (450, 20)
    genes = np.array([4, 15, 3])
    chosen = joined.select_genes(genes).read(cells)
    np.testing.assert_array_equal(dense_of(chosen, 3), expected[cells][:, genes])
    nonzero = (first != 0).sum()
    before = joined.values_before(np.array([0, 400, 401, 450]))
    np.testing.assert_array_equal(before, [0, nonzero, nonzero + 20, nonzero + 50 * 20])


def test_an_opened_matrix_can_be_sent_to_another_process(tmp_path: Path) -> None:
    dense = counts()
    matrix = open_matrix(write(tmp_path / "a.h5ad", sparse.csr_matrix(dense)))
    matrix.read(np.array([1]))
    copy = pickle.loads(pickle.dumps(matrix))
    np.testing.assert_array_equal(dense_of(copy.read(np.array([1, 2]))), dense[[1, 2]])


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_csc_is_refused_with_the_command_that_converts(
    tmp_path: Path, kind: str, layer: str | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that zarr imports, and of its format
        if kind == "zarr":
            pytest.importorskip("zarr")
        path = write(tmp_path / f"a.{kind}", sparse.csc_matrix(counts()))
        with pytest.raises(InvalidDataError, match="got CSC. Convert the file once") as error:
            open_matrix(path, layer)
        command = re.search(r"once: (.*)\.$", str(error.value)).group(1)
        exec(command, {"anndata": anndata})
    read = open_matrix(path, layer).read(np.arange(N_CELLS))
    np.testing.assert_array_equal(dense_of(read), counts())


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", sparse.csr_matrix(counts()))
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(path.read_bytes()[:2000])
    text = tmp_path / "text.h5ad"
    text.write_text("no cells")
    folder = tmp_path / "empty.zarr"
    folder.mkdir()
    for wrong in (cut, text, folder):
        with pytest.raises(InvalidDataError, match=re.escape(str(wrong))):
            open_matrix(wrong)
    with pytest.raises(FileNotFoundError, match="gone"):
        open_matrix(tmp_path / "gone.h5ad")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["values"] = np.ones(3)
    with pytest.raises(InvalidDataError, match="Expected counts in X of"):
        open_matrix(other)
    with pytest.raises(UnknownKeyError, match="Did you mean 'counts'"):
        open_matrix(path, "count")


def test_pointers_and_genes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", sparse.csr_matrix(counts()))
    with h5py.File(path, "r+") as file:
        file["X/indices"][10] = N_GENES
    with pytest.raises(InvalidDataError, match="Expected gene indices below 37"):
        open_matrix(path).read(np.arange(N_CELLS))
    with h5py.File(path, "r+") as file:
        file["X/indptr"][-1] = 3
    with pytest.raises(InvalidDataError, match="increasing row pointers"):
        open_matrix(path)


def test_a_file_that_is_replaced_under_way_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", sparse.csr_matrix(counts()))
    matrix = open_matrix(path)
    write(tmp_path / "b.h5ad", sparse.csr_matrix(counts(5))).replace(path)
    with pytest.raises(InvalidDataError, match="as it was when it was opened"):
        matrix.read(np.array([0]))
    path.unlink()
    with pytest.raises(InvalidDataError, match="Put it back"):
        matrix.read(np.array([0]))


def test_an_open_file_keeps_few_decompressed_chunks(tmp_path: Path) -> None:
    path = write(tmp_path / "cells.h5ad", sparse.csr_matrix(counts()), compression="gzip")
    group = FileElement(path, "X")()
    for name in ("data", "indices"):
        assert group[name].id.get_access_plist().get_chunk_cache()[1] <= 2**20
