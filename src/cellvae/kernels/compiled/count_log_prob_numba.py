"""Log-likelihood of cells, and its derivatives, cell by cell, as work for a team of threads."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.negative_binomial_numba import (
    add_into,
    axpy,
    exp_shifted,
    log_factorial,
    log_zero_probability,
    max_sum,
    multiply_inplace,
    negative_binomial_counts,
    negative_binomial_zeros,
    poisson_counts,
    poisson_zeros,
    reciprocal,
    scale_clamp_,
    softmax_backward,
    zero_inflated_zeros,
)
from cellvae.kernels.compiled.vector_math_numba import FASTMATH_FLAGS, f32, f64, i32, sum_unordered

GENES_PER_TILE = 1024
"""Genes whose intermediate results stay next to the processor."""
MIN_MEAN = f32(1e-20)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def count_log_prob_rows(
    start, end, counts, entries, genes, starts,
    logits, logits_bias, log_size, theta, dropout, dropout_bias, weight,
    wanted, value, grad_logits, grad_log_size, grad_theta, grad_dropout, grad_gene,
):  # fmt: skip
    """Log-likelihood of cells from `start` to before `end`.

    Parameters
    ----------
    start, end
        Range of the cells.
    counts
        Counts, [cells, genes]; [0, 0] where they are given by their entries.
    entries, genes, starts
        Counts that are not zero, the gene of each, and where each cell begins; empty where all are
        given.
    logits, logits_bias
        Logits of the share that each gene has of its cell, [cells, genes], and what is added to
        those of every cell, [genes].
    log_size
        Natural logarithm of the size of each cell, [cells].
    theta
        Inverse dispersion, [1, genes] or [cells, genes]; [0, 0] for Poisson.
    dropout, dropout_bias
        Logits of a structural zero, [cells, genes], and what is added to those of every cell,
        [genes]; empty where there are none.
    weight
        What each cell counts for in `grad_gene`, [cells].
    wanted
        Whether derivatives are.
    value, grad_log_size
        Log-likelihood of each cell and its derivative by the logarithm of the size, [cells].
    grad_logits, grad_dropout
        Derivatives, [cells, genes]; [1, genes] where they are not wanted. They may take the place
        of what they are derivatives by.
    grad_theta
        Derivatives by an inverse dispersion that differs from cell to cell, likewise.
    grad_gene
        Sums over the cells of the derivatives by logits, theta and dropout, [3, genes].
    """
    n_genes = logits.shape[1]
    sparse = starts.shape[0] > 0
    dispersed = theta.shape[0] > 0
    per_cell = theta.shape[0] > 1
    inflated = dropout.shape[0] > 0
    mu = np.empty(n_genes, f32)
    inverse_theta = np.empty(n_genes, f32)
    places = np.empty(n_genes + 1, i32)
    few = np.empty((7, n_genes), f64)
    odds = np.empty((3, n_genes), f32)
    of_genes = np.empty((4, GENES_PER_TILE), f32)
    grad_gene[:] = f32(0.0)
    for c in range(start, end):
        row = c if wanted else 0
        exp_shifted(logits[c], logits_bias, max_sum(logits[c], logits_bias), mu)
        size = f32(math.exp(log_size[c]))
        factor = size / sum_unordered(mu)
        t = theta[c if per_cell else 0] if dispersed else mu
        if dispersed and (per_cell or c == start):
            reciprocal(t, inverse_theta)

        # What is not zero first, all of a cell at once.
        n = 0
        if sparse:
            for i in range(starts[c], starts[c + 1]):
                places[n] = genes[i]
                few[0, n] = entries[i]
                n += entries[i] != f32(0.0)
        else:
            x = counts[c]
            for j in range(n_genes):
                # Without a branch, which a processor would guess wrongly at every other count.
                places[n] = j
                n += x[j] != f32(0.0)
            for i in range(n):
                few[0, i] = x[places[i]]
        for i in range(n):
            j = places[i]
            count = f32(few[0, i])
            m = mu[j] * factor
            few[1, i] = MIN_MEAN if m < MIN_MEAN else m
            few[2, i] = t[j]
            if inflated:
                odds[0, i] = dropout[c, j] + dropout_bias[j]
            few[3, i] = log_factorial(count)
        if dispersed:
            negative_binomial_counts(
                few[0, :n], few[1, :n], few[2, :n], few[3, :n],
                few[4, :n], few[5, :n], few[6, :n],
            )  # fmt: skip
        else:
            poisson_counts(few[0, :n], few[1, :n], few[3, :n], few[4, :n], few[5, :n])
        if inflated:
            log_zero_probability(odds[0, :n], odds[1, :n], odds[2, :n])

        of_cell = f32(0.0)
        grad_size = f32(0.0)
        done = 0
        for first in range(0, n_genes, GENES_PER_TILE):
            last = min(first + GENES_PER_TILE, n_genes)
            m = mu[first:last]
            values = of_genes[0][: last - first]
            p = of_genes[1][: last - first]
            grad_mu = grad_logits[row][first:last]
            by_p = of_genes[3][: last - first]
            by_t = of_genes[2][: last - first]
            if per_cell:
                by_t = grad_theta[row][first:last]
            scale_clamp_(m, factor, MIN_MEAN)
            if dispersed:
                negative_binomial_zeros(
                    m, t[first:last], inverse_theta[first:last], values, grad_mu, by_t
                )
            else:
                poisson_zeros(m, values, grad_mu)
            if inflated:
                add_into(dropout[c][first:last], dropout_bias[first:last], p)
                zero_inflated_zeros(p, values, grad_mu, by_t, by_p)
            while done < n and places[done] < last:
                j = places[done] - first
                values[j] = few[4, done]
                grad_mu[j] = few[5, done]
                if dispersed:
                    by_t[j] = few[6, done]
                if inflated:
                    values[j] -= odds[1, done]
                    by_p[j] = -odds[2, done]
                done += 1
            of_cell += sum_unordered(values)
            multiply_inplace(grad_mu, m)
            grad_size += sum_unordered(grad_mu)
            if wanted and dispersed and not per_cell:
                axpy(grad_gene[1][first:last], weight[c], by_t)
            if wanted and inflated:
                grad_dropout[row][first:last] = by_p
                axpy(grad_gene[2][first:last], weight[c], by_p)
        value[c] = of_cell
        grad_log_size[c] = grad_size
        if wanted:
            softmax_backward(grad_logits[row], mu, grad_size / size)
            axpy(grad_gene[0], weight[c], grad_logits[row])


@cfunc(types.void(types.voidptr), cache=True)
def kernel(job):
    """What each thread of a team does: take a range of cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, genes, rows of theta, rows of dropout, the
    address of the job itself, entries (-1 where all counts are given), whether derivatives are
    asked for, cells of a range, and the addresses of the arrays of :func:`cells`, of which the last
    has the sums of each range.
    """
    known = carray(job, 26, types.int64)
    n_cells, n_genes, n_theta, n_dropout = known[1], known[2], known[3], known[4]
    n_entries = max(known[6], 0)
    sparse = known[6] >= 0
    wanted = known[7] != 0
    at_once = known[8]
    whole = (n_cells, n_genes)
    counts = carray(pointer_at(known[9]), (0 if sparse else n_cells, n_genes), f32)
    entries = carray(pointer_at(known[10]), n_entries, f32)
    genes = carray(pointer_at(known[11]), n_entries, i32)
    starts = carray(pointer_at(known[12]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(pointer_at(known[13]), whole, f32)
    logits_bias = carray(pointer_at(known[14]), n_genes, f32)
    log_size = carray(pointer_at(known[15]), n_cells, f32)
    theta = carray(pointer_at(known[16]), (n_theta, n_genes), f32)
    dropout = carray(pointer_at(known[17]), (n_dropout, n_genes), f32)
    dropout_bias = carray(pointer_at(known[18]), n_genes if n_dropout else 0, f32)
    weight = carray(pointer_at(known[19]), n_cells, f32)
    value = carray(pointer_at(known[20]), n_cells, f32)
    grad_log_size = carray(pointer_at(known[21]), n_cells, f32)
    grad_logits = carray(pointer_at(known[22]), whole, f32)
    grad_theta = carray(pointer_at(known[23]), whole, f32)
    grad_dropout = carray(pointer_at(known[24]), whole, f32)
    grad_gene = carray(pointer_at(known[25]), ((n_cells + at_once - 1) // at_once, 3, n_genes), f32)
    if not wanted:
        # One row for each thread, since nobody reads it.
        grad_logits = np.empty((1, n_genes), f32)
        grad_theta = np.empty((1, n_genes), f32)
        grad_dropout = np.empty((1, n_genes), f32)
        grad_gene = np.empty((1, 3, n_genes), f32)
    while True:
        start = atomic_fetch_add(known[5], at_once)
        if start >= n_cells:
            break
        count_log_prob_rows(
            start, min(start + at_once, n_cells), counts, entries, genes, starts,
            logits, logits_bias, log_size, theta, dropout, dropout_bias, weight,
            wanted, value, grad_logits, grad_log_size, grad_theta, grad_dropout,
            grad_gene[start // at_once if wanted else 0],
        )  # fmt: skip
