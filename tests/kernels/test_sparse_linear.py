"""Products of sparse features with weights, against dense ones in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import sparse_linear, to_gene_major
from cellvae.kernels.compiled.functions.sparse_rows_numba import NARROW
from cellvae.kernels.compiled.functions.sparse_rows_numba import WIDE as WIDE_COLUMNS
from cellvae.kernels.compiled.sparse_linear_numba import BYTES_PER_TILE, N_GENE_RANGES
from cellvae.kernels.layers.sparse_linear import latest_transpose

# Fewer genes than ranges, numbers that no group of four divides, widths beside those of vectors.
SHAPES = [(1, 5, 3), (37, 61, 9), (64, 3, 16), (33, 500, 33), (20, N_GENE_RANGES, 1)]
SHAPES += [(11, 70, WIDE_COLUMNS + 2 * NARROW + 5)]
# Weights that are read a few genes at a time.
WIDE = 1024
FEW_GENES = BYTES_PER_TILE // (4 * WIDE)
SHAPES += [(n, k * FEW_GENES + more, WIDE) for n, k, more in ((3, 1, 1), (40, 2, 0), (17, 2, 3))]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def made(n_cells: int, n_genes: int, density: float = 0.3) -> tuple[CSRBatch, Tensor]:
    matrix = sparse.random(
        n_cells, n_genes, density, format="csr", dtype=np.float32, random_state=1
    )
    whole = matrix.toarray()
    whole[n_cells // 2] = 0
    matrix = sparse.csr_matrix(whole)
    entries = CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, n_genes)
    return entries, torch.from_numpy(whole).double()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_those_of_the_dense_product(
    shape: tuple[int, int, int], laid_out: bool, with_bias: bool
) -> None:
    torch.manual_seed(0)
    n_cells, n_genes, n_out = shape
    entries, dense = made(n_cells, n_genes)
    weight, bias = torch.randn(n_out, n_genes), torch.randn(n_out) if with_bias else None
    by_out = torch.randn(n_cells, n_out)
    mine = (to_gene_major(weight) if laid_out else weight).requires_grad_()
    own_bias = None if bias is None else bias.clone().requires_grad_()

    product = sparse_linear(entries, mine, own_bias)
    (product * by_out).sum().backward()

    expected = dense @ weight.detach().double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.grad.double(), by_out.double().T @ dense, rtol=1e-5, atol=1e-5)
    assert n_out == 1 or mine.grad.stride() == mine.stride()
    if own_bias is not None:
        torch.testing.assert_close(own_bias.grad, by_out.sum(0))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("n_genes", "n_out"), [(400, 24), (3 * FEW_GENES + 5, WIDE)])
def test_results_do_not_depend_on_the_number_of_threads(n_genes: int, n_out: int) -> None:
    entries, _ = made(128, n_genes)
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        torch.manual_seed(0)
        weight = to_gene_major(torch.randn(n_out, n_genes)).requires_grad_()
        product = sparse_linear(entries, weight)
        product.square().sum().backward()
        found.append((product.detach(), weight.grad))
    for product, gradient in found[1:]:
        assert torch.equal(product, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_a_cell_gives_the_same_bits_among_others_and_alone() -> None:
    entries, _ = made(64, 3 * FEW_GENES)
    weight = to_gene_major(torch.randn(WIDE, 3 * FEW_GENES))
    whole = sparse_linear(entries, weight)
    for start, end in ((0, 1), (5, 40), (63, 64)):
        assert torch.equal(sparse_linear(entries.slice_cells(start, end), weight), whole[start:end])


def test_no_entries_at_all_leave_the_constant() -> None:
    none = CSRBatch(torch.zeros(0), torch.zeros(0, dtype=torch.int32), torch.zeros(4).long(), 6)
    weight, bias = torch.randn(2, 6, requires_grad=True), torch.randn(2)
    product = sparse_linear(none, weight, bias)
    assert torch.equal(product, bias.expand(3, 2))
    product.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(2, 6))


def test_weights_gene_by_gene_are_the_same_weights() -> None:
    weight = torch.randn(3, 5)
    laid_out = to_gene_major(weight)
    assert torch.equal(laid_out, weight)
    assert laid_out.stride() == (1, 3)


def test_layers_of_the_same_features_transpose_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, dense = made(40, 90)
    known, find = [], latest_transpose.find

    def counting(batch: CSRBatch) -> object:
        known.append(find(batch) is not None)
        return find(batch)

    monkeypatch.setattr(latest_transpose, "find", counting)
    weights = [torch.randn(n_out, 90).requires_grad_() for n_out in (7, 12, 3)]
    sum(sparse_linear(entries, w).square().sum() for w in weights).backward()
    assert known == [False, True, True]
    for weight in weights:
        other = weight.detach().double().requires_grad_()
        (dense @ other.T).square().sum().backward()
        torch.testing.assert_close(weight.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", ["values", "other batch", "n_genes"])
def test_features_that_changed_are_transposed_again(change: str) -> None:
    entries, dense = made(40, 90)
    weight = torch.randn(5, 90).requires_grad_()
    sparse_linear(entries, weight).sum().backward()
    weight.grad, n_genes = None, 90
    if change == "values":
        entries.values.mul_(2)
        dense = 2 * dense
    elif change == "other batch":
        entries, dense = made(41, 90)
    else:
        n_genes = 95
        entries, dense = entries._replace(n_genes=95), torch.nn.functional.pad(dense, (0, 5))
        weight = torch.randn(5, n_genes).requires_grad_()
    sparse_linear(entries, weight).sum().backward()
    expected = dense.sum(0).expand(5, n_genes)
    torch.testing.assert_close(weight.grad.double(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_kept_of_features_that_are_gone() -> None:
    entries, _ = made(40, 90)
    weight = torch.randn(5, 90).requires_grad_()
    sparse_linear(entries, weight).sum().backward()
    assert latest_transpose.find(entries) is not None
    del entries
    assert latest_transpose.entry is None
