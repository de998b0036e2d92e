"""One matrix of counts in every form that an AnnData can hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

N_CELLS, N_GENES = 60, 23


def as_anndata(matrix: Any) -> AnnData:
    """AnnData with names of cells and genes that sort unlike their positions, and two columns."""
    n_cells, n_genes = matrix.shape
    numbers = np.arange(n_cells)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(["late", "early", "middle"])[numbers % 3]),
            "depth": (numbers % 7 + 1) / 2,
        },
        index=[f"cell-{i}" for i in range(n_cells)],
    )
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"gene-{i}" for i in range(n_genes)]))


def on_disk(matrix: Any, path: Path) -> AnnData:
    as_anndata(matrix).write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")


def in_layer(matrix: Any) -> AnnData:
    adata = as_anndata(np.full(matrix.shape, 0.5, dtype=np.float32))
    adata.layers["counts"] = matrix
    return adata


def as_view(matrix: Any) -> AnnData:
    """Every second cell and all but the first gene of a larger AnnData, in another order."""
    larger = np.full((2 * len(matrix), matrix.shape[1] + 1), 77, dtype=matrix.dtype)
    larger[::2, 1:] = matrix[::-1]
    adata = as_anndata(sparse.csr_matrix(larger))
    cells = np.arange(0, 2 * len(matrix), 2)[::-1]
    return adata[cells, 1:]


def as_backed_view(matrix: Any, path: Path, *, dense: bool) -> AnnData:
    larger = np.full((2 * len(matrix), matrix.shape[1] + 1), 77, dtype=matrix.dtype)
    larger[::2, 1:] = matrix[::-1]
    adata = on_disk(larger if dense else sparse.csr_matrix(larger), path)
    cells = np.arange(0, 2 * len(matrix), 2)[::-1]
    return adata[cells, 1:]


def fragmented(matrix: Any) -> sparse.csr_matrix:
    """CSR with every value in two parts, and the genes of a cell in falling order."""
    whole = sparse.csr_matrix(matrix)
    data = np.repeat(whole.data, 2)
    data[::2] -= 1
    data[1::2] = 1
    indices = np.repeat(whole.indices, 2)
    for first, last in zip(whole.indptr[:-1] * 2, whole.indptr[1:] * 2, strict=True):
        data[first:last] = data[first:last][::-1].copy()
        indices[first:last] = indices[first:last][::-1].copy()
    return sparse.csr_matrix((data, indices, whole.indptr * 2), shape=whole.shape)


def read_only(matrix: Any) -> Any:
    """The matrix with arrays that nobody may write to, as workers and mapped files have them."""
    for array in (
        (matrix.data, matrix.indices, matrix.indptr) if sparse.issparse(matrix) else [matrix]
    ):
        array.flags.writeable = False
    return matrix


FORMS: dict[str, Callable[[Any, Path], AnnData]] = {
    "dense": lambda m, p: as_anndata(m.copy()),
    "dense by column": lambda m, p: as_anndata(np.asfortranarray(m)),
    "csr": lambda m, p: as_anndata(sparse.csr_matrix(m)),
    "csc": lambda m, p: as_anndata(sparse.csc_matrix(m)),
    "csr array": lambda m, p: as_anndata(sparse.csr_array(m)),
    "csc array": lambda m, p: as_anndata(sparse.csc_array(m)),
    "uint8": lambda m, p: as_anndata(sparse.csr_matrix(m.astype(np.uint8))),
    "int32": lambda m, p: as_anndata(sparse.csr_matrix(m.astype(np.int32))),
    "int64 dense": lambda m, p: as_anndata(m.astype(np.int64)),
    "float64": lambda m, p: as_anndata(sparse.csr_matrix(m.astype(np.float64))),
    "float16 dense": lambda m, p: as_anndata(m.astype(np.float16)),
    "big endian": lambda m, p: as_anndata(m.astype(">f4")),
    "fragmented": lambda m, p: as_anndata(fragmented(m)),
    "read-only dense": lambda m, p: as_anndata(read_only(m.copy())),
    "read-only csr": lambda m, p: as_anndata(read_only(sparse.csr_matrix(m))),
    "view": lambda m, p: as_view(m),
    "layer": lambda m, p: in_layer(sparse.csr_matrix(m)),
    "backed dense": lambda m, p: on_disk(m, p),
    "backed csr": lambda m, p: on_disk(sparse.csr_matrix(m), p),
    "backed uint16": lambda m, p: on_disk(sparse.csr_matrix(m.astype(np.uint16)), p),
    "backed fragmented": lambda m, p: on_disk(fragmented(m), p),
    "backed view dense": lambda m, p: as_backed_view(m, p, dense=True),
    "backed view csr": lambda m, p: as_backed_view(m, p, dense=False),
}
SIGNED = [form for form in FORMS if form not in ("uint8", "backed uint16")]
FLOATING = [form for form in SIGNED if form not in ("int32", "int64 dense")]


@pytest.fixture
def counts() -> np.ndarray:
    """Counts with some zeros in every cell and gene, [cells, genes]."""
    random = np.random.default_rng(5)
    return (
        random.poisson(2, (N_CELLS, N_GENES)) * random.integers(0, 2, (N_CELLS, 1))
        + random.integers(0, 2, (N_CELLS, N_GENES))
        + np.eye(N_CELLS, N_GENES)
    ).astype(np.float32)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[np.ndarray, str], AnnData]]:
    """Make an AnnData that holds a matrix in one of the forms."""
    made: list[AnnData] = []

    def make_one(matrix: np.ndarray, form: str) -> AnnData:
        made.append(FORMS[form](matrix, tmp_path / f"{len(made)}.h5ad"))
        return made[-1]

    yield make_one
    for adata in made:
        if adata.isbacked and not adata.is_view:
            adata.file.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that name one of these arguments for each form."""
    for argument, forms in {"form": list(FORMS), "signed": SIGNED, "floating": FLOATING}.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, forms)
