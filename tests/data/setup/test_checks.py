"""Checks of every count, in every form of matrix, with the cells and genes named."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data.setup.checks import check_counts, check_names
from cellvae.data.storage import chunks as pieces
from cellvae.data.storage.count_matrix import CountMatrix, count_matrix, refuse_unreadable
from cellvae.errors import DataWarning, InvalidDataError

Make = Callable[[np.ndarray, str], AnnData]


def layer_of(form: str) -> str | None:
    return "counts" if form == "layer" else None


def check(adata: AnnData, form: str = "") -> object:
    return check_counts(count_matrix(adata, layer_of(form)), adata)


def named_places(adata: AnnData, places: list[tuple[int, int]]) -> str:
    names = (f"cell '{adata.obs_names[i]}', gene '{adata.var_names[j]}'" for i, j in places)
    return re.escape("first in " + "; ".join(names))


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even these small matrices into pieces, and read them in several parts."""
    monkeypatch.setattr(pieces, "CHUNK_SIZE", 64)
    monkeypatch.setattr(pieces, "MAX_LOADED", 200)


def test_good_counts_pass_in_every_form(counts: np.ndarray, make: Make, form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        facts = check(make(counts, form), form)
    assert facts.integers
    assert facts.nonempty.all()
    is_dense = "dense" in form or form == "big endian"
    # Dense counts in a file become sparse as they are read.
    stored = counts.size if is_dense and "backed" not in form else np.count_nonzero(counts)
    assert facts.n_values == stored or "view" in form


@pytest.mark.usefixtures("many_pieces")
def test_negative_counts_are_refused_naming_cells_and_genes(
    counts: np.ndarray, make: Make, signed: str
) -> None:
    places = [(3, 7), (3, 9), (20, 0), (59, 22)]
    for i, j in places:
        counts[i, j] = -2
    adata = make(counts, signed)
    expected = f"got 4 negative values, {named_places(adata, places[:3])}"
    with pytest.raises(InvalidDataError, match=expected):
        check(adata, signed)


@pytest.mark.usefixtures("many_pieces")
def test_nan_and_infinite_counts_are_refused_naming_cells_and_genes(
    counts: np.ndarray, make: Make, floating: str
) -> None:
    counts[4, 2] = np.nan
    counts[41, 3] = np.inf
    counts[40, 8] = -np.inf
    counts[30, 1] = -1
    if "fragmented" in floating:  # A part of infinity is none.
        counts[40, 8] = 5
        counts[41, 3] = 5
    adata = make(counts, floating)
    with pytest.raises(InvalidDataError) as raised:
        check(adata, floating)
    text = str(raised.value)
    assert re.search(f"got 1 NaN value, {named_places(adata, [(4, 2)])}; and ", text)
    assert re.search(f"; and 1 negative value, {named_places(adata, [(30, 1)])}. The models", text)
    if "fragmented" not in floating:
        places = named_places(adata, [(40, 8), (41, 3)])
        assert re.search(f"; and 2 infinite values, {places}; and", text)


@pytest.mark.usefixtures("many_pieces")
def test_cells_without_counts_are_named_in_one_warning(
    counts: np.ndarray, make: Make, form: str
) -> None:
    counts[[5, 44]] = 0
    adata = make(counts, form)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facts = check(adata, form)
    assert [warning.category for warning in caught] == [DataWarning]
    first, second = adata.obs_names[[5, 44]]
    assert "got 2 of 60 cells without any in adata." in str(caught[0].message)
    assert f"'{first}', '{second}'." in str(caught[0].message)
    assert np.flatnonzero(~facts.nonempty).tolist() == [5, 44]


def test_zeros_that_are_stored_are_no_counts() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]], dtype=np.float32))
    matrix.data[2:4] = 0
    for values in (matrix, matrix.tocsc(), matrix.astype(np.int32)):
        with pytest.warns(DataWarning, match="got 1 of 3 cells without any in adata.X: '1'"):
            check(AnnData(values))


def test_values_that_are_not_whole_are_recorded_and_not_refused(
    counts: np.ndarray, make: Make, floating: str
) -> None:
    counts[59, 22] = 0.5
    assert not check(make(counts, floating), floating).integers


def test_values_stored_twice_are_added_before_they_are_judged() -> None:
    arrays = (np.array([-1.0, 3.0, 0.5, 0.5]), np.array([1, 1, 0, 0]), np.array([0, 2, 4]))
    matrix = sparse.csr_matrix(arrays, shape=(2, 2))
    before = matrix.data.copy()
    adata = AnnData(matrix)
    assert check(adata).integers
    np.testing.assert_array_equal(adata.X.data, before)
    adata.X.data[0] = -4
    with pytest.raises(InvalidDataError, match="got 1 negative value, first in cell '0', gene '1'"):
        check(adata)


def test_a_view_with_values_stored_twice_is_judged_by_their_sums(
    counts: np.ndarray, make: Make
) -> None:
    adata = make(counts, "fragmented")
    cells = np.arange(59, -1, -1)
    assert check(adata[cells]).nonempty.all()
    counts[7, 2] = -1
    view = make(counts, "fragmented")[cells]
    with pytest.raises(
        InvalidDataError, match="1 negative value, first in cell 'cell-7', gene 'gene-2'"
    ):
        check(view)


def test_a_sparse_matrix_with_positions_outside_is_refused() -> None:
    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        matrix = kind(np.eye(4, dtype=np.float32))
        matrix.indices[2] = 4
        with pytest.raises(InvalidDataError, match="indices below 4 in .* adata.X; got .* to 4"):
            check(AnnData(matrix))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 2), dtype=object), "got values of type object.*astype"),
        (np.full((3, 2), "a"), "got values of type <U1"),
        (np.ones((3, 2), dtype=complex), "got values of type complex128"),
        (np.ma.masked_array(np.ones((3, 2)), np.eye(3, 2)), r"got a masked array.*filled\(0\)"),
    ],
    ids=["object", "text", "complex", "masked"],
)
def test_matrices_of_another_kind_are_refused_with_what_to_do(
    values: np.ndarray, message: str
) -> None:
    adata = AnnData(np.ones((3, 2), dtype=np.float32))
    adata.layers["counts"] = values
    with pytest.raises(InvalidDataError, match=message):
        count_matrix(adata, "counts")


def test_an_anndata_without_x_is_refused_naming_its_layers() -> None:
    adata = AnnData(np.ones((3, 2), dtype=np.float32))
    adata.layers["counts"] = adata.X
    adata.X = None
    with pytest.raises(InvalidDataError, match=r"adata.X; got nothing .*layers here: 'counts'"):
        count_matrix(adata)


class Foreign:
    """Something with a shape that is no matrix of ours, as a dask array is."""

    shape = (3, 2)
    dtype = np.dtype(np.float32)


def test_a_matrix_of_an_unknown_class_is_refused_naming_it() -> None:
    for values in (Foreign(), sparse.coo_matrix(np.eye(3))):
        matrix = CountMatrix(values=values, where="adata.X", advice="")
        with pytest.raises(InvalidDataError, match=f"got .*{type(values).__name__}.*to_memory"):
            refuse_unreadable(matrix)


def test_csc_on_disk_is_refused_with_what_to_do(tmp_path: Path) -> None:
    AnnData(sparse.csc_matrix(np.eye(5, dtype=np.float32))).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(InvalidDataError, match=r"got CSC\. Load it with adata.to_memory"):
        count_matrix(backed)
    backed.file.close()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_anndata_without_cells_or_genes_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidDataError, match=f"got {shape[0]} cells and {shape[1]} genes"):
        check_names(AnnData(np.zeros(shape, dtype=np.float32)))


def test_genes_of_one_name_are_refused_naming_them() -> None:
    adata = AnnData(np.ones((2, 5), dtype=np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.var_names = ["a", "b", "a", "c", "b"]
    with pytest.raises(InvalidDataError, match="2 names more than once: 'a', 'b'.*var_names_make"):
        check_names(adata)


def test_the_counts_of_real_cells_are_whole_and_none_is_missed(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "pbmc3k.h5ad")
    facts = check(adata)
    assert facts.integers and facts.n_values == adata.X.nnz == adata.X.data.size
    adata.X.data[1_234_567] = np.nan
    cell = int(np.searchsorted(adata.X.indptr, 1_234_567, side="right")) - 1
    gene = adata.X.indices[1_234_567]
    with pytest.raises(InvalidDataError, match=named_places(adata, [(cell, gene)])):
        check(adata)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint64])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_counts_whose_sums_would_overflow_are_refused_with_their_place(
    dtype: type, make: Callable[[np.ndarray], object]
) -> None:
    counts = np.ones((4, 3), dtype)
    counts[2, 1] = 1e14
    check(AnnData(make(counts)))
    counts[2, 1] = 1e16
    with pytest.raises(InvalidDataError, match=r"1 too large \(above 1e\+15\) .*'2', gene '1'"):
        check(AnnData(make(counts)))
