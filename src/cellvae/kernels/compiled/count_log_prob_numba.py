"""Kernel of `count_log_prob`: log-probability of the counts of cells, and its derivatives."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.negative_binomial_numba import (
    axpy,
    copy_axpy,
    exp_shifted,
    is_small,
    log_factorial,
    max_sum,
    multiply_sum,
    negative_binomial_counts,
    negative_binomial_small_counts,
    negative_binomial_zeros,
    poisson_counts,
    poisson_zeros,
    reciprocal,
    scale_clamp,
    softmax_backward,
)
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    f32,
    f64,
    i32,
    sum_unordered,
)
from cellvae.kernels.compiled.functions.zero_inflation_numba import (
    zero_inflated_counts,
    zero_inflated_zeros,
)
from cellvae.kernels.compiled.job_layouts import COUNT_LOG_PROB
from cellvae.kernels.kernel_cache import compile_kernel

GENES_PER_TILE = 1024
"""Genes that are computed at a time, so that intermediate results stay in the processor's cache."""
COUNT, MEAN, THETA, LOG_FACTORIAL = range(4)
"""Rows of the work array for the nonzero counts of a cell, in double precision."""
LOG_PROB, GRAD_MU, GRAD_THETA, DROPOUT, GRAD_DROPOUT = range(5)
"""Rows of the array of their log-probabilities and derivatives, and of their dropout logits."""
TILE_LOG_PROB, TILE_GRAD_THETA, TILE_GRAD_DROPOUT, TILE_ODDS, TILE_PROBABILITY = range(5)
"""Rows of the work array for the genes of a tile."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def sort_entries(values, indices, by_size, genes, counts, larger):
    """Nonzero counts of a cell: those up to four in the order of the genes, then the larger ones.

    Without branches, which a processor would mispredict for every other count.

    Parameters
    ----------
    values, indices
        Counts of the cell and their genes.
    by_size
        Whether counts are sorted by size; otherwise all of them count as small.
    genes, counts
        Gene and value of each count, written; with room for one more than there are genes.
    larger
        Work array of the same length.

    Returns
    -------
    Number of small counts, and of all.
    """
    n_small = 0
    n_larger = 0
    for i in range(values.shape[0]):
        genes[n_small] = indices[i]
        counts[n_small] = values[i]
        larger[n_larger] = i
        small = is_small(values[i]) | (not by_size)
        n_small += small & (values[i] != f32(0.0))
        n_larger += (not small) & (values[i] != f32(0.0))
    for k in range(n_larger):
        genes[n_small + k] = indices[larger[k]]
        counts[n_small + k] = values[larger[k]]
    return n_small, n_small + n_larger


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def sort_dense_counts(values, by_size, genes, counts, larger):
    """As :func:`sort_entries`, with a value for every gene."""
    n_small = 0
    n_larger = 0
    for j in range(values.shape[0]):
        genes[n_small] = j
        counts[n_small] = values[j]
        larger[n_larger] = j
        small = is_small(values[j]) | (not by_size)
        n_small += small & (values[j] != f32(0.0))
        n_larger += (not small) & (values[j] != f32(0.0))
    for k in range(n_larger):
        genes[n_small + k] = larger[k]
        counts[n_small + k] = values[larger[k]]
    return n_small, n_small + n_larger


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def put_counts(
    done, end, genes, first, last, found,
    log_prob, grad_mu, grad_theta, grad_dropout, dispersed, inflated,
):  # fmt: skip
    """Write the results of nonzero counts to the tile of their genes.

    Parameters
    ----------
    done, end
        First count that has not been written, and the end of the counts in the order of genes.
    genes
        Gene of each count.
    first, last
        Range of the genes of the tile.
    found
        Results of the counts, a row for each.
    log_prob, grad_mu, grad_theta, grad_dropout
        Results of the genes of the tile, written.
    dispersed, inflated
        Whether the last two are needed.

    Returns
    -------
    First count that belongs to a later tile.
    """
    while done < end and genes[done] < last:
        j = genes[done] - first
        log_prob[j] = found[LOG_PROB, done]
        grad_mu[j] = found[GRAD_MU, done]
        if dispersed:
            grad_theta[j] = found[GRAD_THETA, done]
        if inflated:
            grad_dropout[j] = found[GRAD_DROPOUT, done]
        done += 1
    return done


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def count_log_prob_rows(
    start, end, counts, values, indices, indptr,
    logits, logits_bias, log_library, theta, dropout, dropout_bias, cell_weight,
    need_grad, log_prob, grad_logits, grad_log_library, grad_theta, grad_dropout, grad_gene,
):  # fmt: skip
    """Log-probability of the cells from `start` to before `end`.

    Parameters
    ----------
    start, end
        Range of cells.
    counts
        Dense counts, [cells, genes]; [0, genes] if they are sparse.
    values, indices, indptr
        Sparse counts in CSR format; empty if they are dense.
    logits, logits_bias
        Logits of the fraction of the counts of a cell that each gene has, without their bias,
        [cells, genes], and the bias, [genes].
    log_library
        Natural logarithm of the library size of each cell, [cells].
    theta
        Inverse dispersion, [1, genes] or [cells, genes]; [0, genes] for Poisson.
    dropout, dropout_bias
        Logits of a structural zero without their bias, [cells, genes], and the bias, [genes]; empty
        without zero inflation.
    cell_weight
        Weight of each cell in `grad_gene`, [cells].
    need_grad
        Whether derivatives are needed.
    log_prob, grad_log_library
        Log-probability of each cell and its derivative by `log_library`, [cells].
    grad_logits, grad_dropout
        Derivatives, [cells, genes]; [1, genes] if they are not needed. May be the memory of
        `logits` and `dropout`.
    grad_theta
        Derivatives by an inverse dispersion per cell, likewise.
    grad_gene
        Weighted sums over the cells of the derivatives by logits, theta and dropout, [3, genes].
    """
    n_genes = logits.shape[1]
    sparse = indptr.shape[0] > 0
    dispersed = theta.shape[0] > 0
    per_cell = theta.shape[0] > 1
    inflated = dropout.shape[0] > 0
    mu = np.empty(n_genes, f32)
    inverse_theta = np.empty(n_genes, f32)
    nonzero = np.empty(n_genes + 1, i32)
    larger = np.empty(n_genes + 1, i32)
    work = np.empty((4, n_genes + 1), f64)
    found = np.empty((5, n_genes), f32)
    # Rows of 4 KiB would share lines of the processor's first cache.
    tile = np.empty((5, GENES_PER_TILE + 16), f32)
    grad_gene[:] = f32(0.0)
    for c in range(start, end):
        row = c if need_grad else 0
        total = exp_shifted(logits[c], logits_bias, max_sum(logits[c], logits_bias), mu)
        library = f32(math.exp(log_library[c]))
        factor = library / total
        t = theta[c if per_cell else 0] if dispersed else mu
        if dispersed and (per_cell or c == start):
            reciprocal(t, inverse_theta)

        # The nonzero counts of the cell, all at once.
        if sparse:
            i, k = indptr[c], indptr[c + 1]
            n_small, n = sort_entries(
                values[i:k], indices[i:k], dispersed, nonzero, work[COUNT], larger
            )
        else:
            n_small, n = sort_dense_counts(counts[c], dispersed, nonzero, work[COUNT], larger)
        for i in range(n):
            j = nonzero[i]
            work[MEAN, i] = scale_clamp(mu[j], factor)
            work[THETA, i] = t[j]
            work[LOG_FACTORIAL, i] = log_factorial(f32(work[COUNT, i]))
            if inflated:
                found[DROPOUT, i] = dropout[c, j] + dropout_bias[j]
        if dispersed:
            k = n_small
            negative_binomial_small_counts(
                work[COUNT, :k], work[MEAN, :k], work[THETA, :k], work[LOG_FACTORIAL, :k],
                found[LOG_PROB, :k], found[GRAD_MU, :k], found[GRAD_THETA, :k],
            )  # fmt: skip
            negative_binomial_counts(
                work[COUNT, k:n], work[MEAN, k:n], work[THETA, k:n], work[LOG_FACTORIAL, k:n],
                found[LOG_PROB, k:n], found[GRAD_MU, k:n], found[GRAD_THETA, k:n],
            )  # fmt: skip
        else:
            poisson_counts(
                work[COUNT, :n], work[MEAN, :n], work[LOG_FACTORIAL, :n],
                found[LOG_PROB, :n], found[GRAD_MU, :n],
            )  # fmt: skip
        if inflated:
            zero_inflated_counts(found[DROPOUT, :n], found[LOG_PROB, :n], found[GRAD_DROPOUT, :n])

        # All genes as if their counts were zero, tile by tile, with the nonzero counts put in.
        cell_log_prob = f32(0.0)
        grad_library = f32(0.0)
        n_small_done = 0
        n_done = n_small
        for first in range(0, n_genes, GENES_PER_TILE):
            last = min(first + GENES_PER_TILE, n_genes)
            m = mu[first:last]
            tile_log_prob = tile[TILE_LOG_PROB][: last - first]
            grad_mu = grad_logits[row][first:last]
            grad_p = tile[TILE_GRAD_DROPOUT][: last - first]
            grad_t = tile[TILE_GRAD_THETA][: last - first]
            if per_cell:
                grad_t = grad_theta[row][first:last]
            if dispersed:
                negative_binomial_zeros(
                    m, factor, t[first:last], inverse_theta[first:last],
                    tile_log_prob, grad_mu, grad_t,
                )  # fmt: skip
            else:
                poisson_zeros(m, factor, tile_log_prob, grad_mu)
            if inflated:
                zero_inflated_zeros(
                    dropout[c][first:last], dropout_bias[first:last],
                    tile[TILE_ODDS][: last - first], tile[TILE_PROBABILITY][: last - first],
                    tile_log_prob, grad_mu, grad_t, grad_p,
                )  # fmt: skip
            n_small_done = put_counts(
                n_small_done, n_small, nonzero, first, last, found,
                tile_log_prob, grad_mu, grad_t, grad_p, dispersed, inflated,
            )  # fmt: skip
            n_done = put_counts(
                n_done, n, nonzero, first, last, found,
                tile_log_prob, grad_mu, grad_t, grad_p, dispersed, inflated,
            )  # fmt: skip
            cell_log_prob += sum_unordered(tile_log_prob)
            grad_library += multiply_sum(grad_mu, m)
            if need_grad and dispersed and not per_cell:
                axpy(grad_gene[1][first:last], cell_weight[c], grad_t)
            if need_grad and inflated:
                copy_axpy(
                    grad_p, grad_dropout[row][first:last], grad_gene[2][first:last], cell_weight[c]
                )
        log_prob[c] = cell_log_prob
        grad_log_library[c] = grad_library
        if need_grad:
            softmax_backward(
                grad_logits[row], mu, grad_library / library, grad_gene[0], cell_weight[c]
            )


@compile_kernel
def count_log_prob_kernel(job):
    """Compute ranges of the cells of a `CountLogProbJob` until none are left."""
    at = COUNT_LOG_PROB
    fields = carray(job, len(at), types.int64)
    n_cells, n_genes = fields[at.n_cells], fields[at.n_genes]
    n_theta_rows, n_dropout_rows = fields[at.n_theta_rows], fields[at.n_dropout_rows]
    n_nonzero = max(fields[at.n_nonzero], 0)
    sparse = fields[at.n_nonzero] >= 0
    need_grad = fields[at.need_grad] != 0
    range_size = fields[at.cells_per_range]
    n_ranges = (n_cells + range_size - 1) // range_size
    shape = (n_cells, n_genes)
    counts = carray(pointer_at(fields[at.counts]), (0 if sparse else n_cells, n_genes), f32)
    values = carray(pointer_at(fields[at.values]), n_nonzero, f32)
    indices = carray(pointer_at(fields[at.indices]), n_nonzero, i32)
    indptr = carray(pointer_at(fields[at.indptr]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(pointer_at(fields[at.logits]), shape, f32)
    logits_bias = carray(pointer_at(fields[at.logits_bias]), n_genes, f32)
    log_library = carray(pointer_at(fields[at.log_library]), n_cells, f32)
    theta = carray(pointer_at(fields[at.theta]), (n_theta_rows, n_genes), f32)
    dropout = carray(pointer_at(fields[at.dropout]), (n_dropout_rows, n_genes), f32)
    dropout_bias = carray(
        pointer_at(fields[at.dropout_bias]), n_genes if n_dropout_rows else 0, f32
    )
    cell_weight = carray(pointer_at(fields[at.cell_weight]), n_cells, f32)
    log_prob = carray(pointer_at(fields[at.log_prob]), n_cells, f32)
    grad_log_library = carray(pointer_at(fields[at.grad_log_library]), n_cells, f32)
    grad_logits = carray(pointer_at(fields[at.grad_logits]), shape, f32)
    grad_theta = carray(pointer_at(fields[at.grad_theta]), shape, f32)
    grad_dropout = carray(pointer_at(fields[at.grad_dropout]), shape, f32)
    grad_gene = carray(pointer_at(fields[at.grad_gene]), (n_ranges, 3, n_genes), f32)
    if not need_grad:
        # One row for each thread; nobody reads it.
        grad_logits = np.empty((1, n_genes), f32)
        grad_theta = np.empty((1, n_genes), f32)
        grad_dropout = np.empty((1, n_genes), f32)
        grad_gene = np.empty((1, 3, n_genes), f32)
    while True:
        start = atomic_fetch_add(job, at.next_cell, range_size)
        if start >= n_cells:
            break
        count_log_prob_rows(
            start, min(start + range_size, n_cells), counts, values, indices, indptr,
            logits, logits_bias, log_library, theta, dropout, dropout_bias, cell_weight,
            need_grad, log_prob, grad_logits, grad_log_library, grad_theta, grad_dropout,
            grad_gene[start // range_size if need_grad else 0],
        )  # fmt: skip
