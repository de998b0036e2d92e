"""Log-likelihood of cells, and its derivatives, cell by cell, as work for a team of threads."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.elementary import EXACT, f32, f64, i32, largest, total
from cellvae.kernels.rows import (
    inflated_zeros,
    inflation,
    inverses,
    negative_binomial_counts,
    negative_binomial_zeros,
    poisson_counts,
    poisson_zeros,
    products,
    scaled,
    shares,
    through_softmax,
)
from cellvae.kernels.shared_job import at, taken_from

AT_ONCE = 4
"""Cells that a thread takes at a time."""
LEAST = f32(1e-20)
LOG_FACTORIALS = np.array([math.lgamma(n + 1.0) for n in range(2048)])


@njit(error_model="numpy", fastmath=EXACT)
def cells(
    start, end, counts, entries, genes, starts, logits, log_size, theta, dropout,
    value, by_logits, by_log_size, by_theta, by_dropout,
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
    logits
        Logits of the share that each gene has of its cell, [cells, genes].
    log_size
        Natural logarithm of the size of each cell, [cells].
    theta
        Inverse dispersion, [1, genes] or [cells, genes]; [0, 0] for Poisson.
    dropout
        Logits of a structural zero, [cells, genes]; [0, 0] where there are none.
    value, by_log_size
        Log-likelihood of each cell and its derivative by the logarithm of the size, [cells].
    by_logits, by_theta, by_dropout
        Derivatives, [cells, genes], those by theta for each cell too; [1, genes], of the last cell
        of the range, where they are not asked for.
    """
    n_genes = logits.shape[1]
    sparse = starts.shape[0] > 0
    dispersed = theta.shape[0] > 0
    per_cell = theta.shape[0] > 1
    inflated = dropout.shape[0] > 0
    mu = np.empty(n_genes, f32)
    by_mu = np.empty(n_genes, f32)
    values = np.empty(n_genes, f32)
    inverse_theta = np.empty(n_genes, f32)
    places = np.empty(n_genes + 1, i32)
    few = np.empty((7, n_genes), f64)
    p = np.empty(n_genes, f32)
    log_odds = np.empty(n_genes, f32)
    rate = np.empty(n_genes, f32)
    for c in range(start, end):
        row = c if by_logits.shape[0] > 1 else 0
        shares(logits[c], largest(logits[c]), mu)
        size = f32(math.exp(log_size[c]))
        scaled(mu, size / total(mu), LEAST)
        t = theta[c if per_cell else 0] if dispersed else mu
        if dispersed and (per_cell or c == start):
            inverses(t, inverse_theta)
        if dispersed:
            negative_binomial_zeros(mu, t, inverse_theta, values, by_mu, by_theta[row])
        else:
            poisson_zeros(mu, values, by_mu)
        if inflated:
            inflated_zeros(dropout[c], values, by_mu, by_theta[row], by_dropout[row])

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
            few[1, i] = mu[j]
            few[2, i] = t[j]
            if inflated:
                p[i] = dropout[c, j]
            whole = int(count) if f32(0.0) < count < f32(2048.0) else 0
            few[3, i] = LOG_FACTORIALS[whole] if whole == count else math.lgamma(f64(count) + 1.0)
        if dispersed:
            negative_binomial_counts(
                few[0, :n], few[1, :n], few[2, :n], few[3, :n],
                few[4, :n], few[5, :n], few[6, :n],
            )  # fmt: skip
        else:
            poisson_counts(few[0, :n], few[1, :n], few[3, :n], few[4, :n], few[5, :n])
        if inflated:
            inflation(p[:n], log_odds[:n], rate[:n])
        for i in range(n):
            j = places[i]
            values[j] = few[4, i]
            by_mu[j] = few[5, i]
            if dispersed:
                by_theta[row, j] = few[6, i]
            if inflated:
                values[j] -= log_odds[i]
                by_dropout[row, j] = -rate[i]

        value[c] = total(values)
        products(by_mu, mu)
        by_log_size[c] = total(by_mu)
        through_softmax(by_mu, mu, by_log_size[c] / size, by_logits[row])


@cfunc(types.void(types.voidptr), cache=True)
def work(job):
    """What each thread of a team does: take a few cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, genes, rows of theta, rows of dropout, the
    address of the job itself, entries (-1 where all counts are given), the addresses of the arrays
    of :func:`cells`, and whether derivatives by logits, theta and dropout are asked for.
    """
    known = carray(job, 21, types.int64)
    n_cells, n_genes, n_theta, n_dropout = known[1], known[2], known[3], known[4]
    n_entries = max(known[6], 0)
    sparse = known[6] >= 0
    whole = (n_cells, n_genes)
    counts = carray(at(known[7]), (0 if sparse else n_cells, n_genes), f32)
    entries = carray(at(known[8]), n_entries, f32)
    genes = carray(at(known[9]), n_entries, i32)
    starts = carray(at(known[10]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(at(known[11]), whole, f32)
    log_size = carray(at(known[12]), n_cells, f32)
    theta = carray(at(known[13]), (n_theta, n_genes), f32)
    dropout = carray(at(known[14]), (n_dropout, n_genes), f32)
    value = carray(at(known[15]), n_cells, f32)
    by_logits = carray(at(known[16]), whole, f32)
    by_log_size = carray(at(known[17]), n_cells, f32)
    by_theta = carray(at(known[18]), whole, f32)
    by_dropout = carray(at(known[19]), whole, f32)
    if known[20] == 0:
        # One row for each thread, since nobody reads it.
        by_logits = np.empty((1, n_genes), f32)
        by_theta = np.empty((1, n_genes), f32)
        by_dropout = np.empty((1, n_genes), f32)
    while True:
        start = taken_from(known[5], AT_ONCE)
        if start >= n_cells:
            break
        cells(
            start, min(start + AT_ONCE, n_cells), counts, entries, genes, starts,
            logits, log_size, theta, dropout,
            value, by_logits, by_log_size, by_theta, by_dropout,
        )  # fmt: skip
