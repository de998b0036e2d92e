"""Distribution of the log fold change of every gene, as work for a team of threads."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.vector_math_numba import FASTMATH_FLAGS, LOG2_E, f32, f64, log32

GENES_PER_JOB = 16
"""Genes that a thread takes at a time: what a line of memory holds."""
N_BINS = 1024


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log_fold_change(one, other, pseudocount, out):
    """Log2 of the ratio of two expressions after a pseudocount was added to both."""
    for j in range(out.shape[0]):
        out[j] = (log32(one[j] + pseudocount) - log32(other[j] + pseudocount)) * LOG2_E


@njit(error_model="numpy", fastmath=True)
def mean_and_variance(values):
    """Mean, and mean squared distance from it."""
    total = 0.0
    for i in range(values.shape[0]):
        total += f64(values[i])
    mean = total / values.shape[0]
    squares = 0.0
    for i in range(values.shape[0]):
        distance = f64(values[i]) - mean
        squares += distance * distance
    return mean, squares / values.shape[0]


@njit(error_model="numpy", fastmath=True)
def min_max(values):
    """Least and largest number."""
    low = values[0]
    high = values[0]
    for i in range(values.shape[0]):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@njit(error_model="numpy", fastmath=True)
def count_beyond_delta(values, delta):
    """How many are at least delta, and how many below minus delta."""
    up = 0
    down = 0
    for i in range(values.shape[0]):
        up += values[i] >= delta
        down += values[i] < -delta
    return up, down


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def median(values, low, high, bins, counted, near):
    """Middle number, or the mean of the two in the middle.

    Numbers are counted in bins of equal width; only those of the bins in the middle are sorted.
    """
    n = values.shape[0]
    if not high > low:
        return low
    factor = f32(N_BINS - 1) / (high - low)
    counted[:] = 0
    for i in range(n):
        bins[i] = np.int32((values[i] - low) * factor)
    for i in range(n):
        counted[bins[i]] += 1
    first, second = (n - 1) // 2, n // 2
    start = 0
    below = 0
    while below + counted[start] <= first:
        below += counted[start]
        start += 1
    end = start
    up_to = below + counted[start]
    while up_to <= second:
        end += 1
        up_to += counted[end]
    n_near = 0
    for i in range(n):
        near[n_near] = values[i]
        n_near += start <= bins[i] <= end
    middle = np.sort(near[:n_near])
    return (middle[first - below] + middle[second - below]) * f32(0.5)


@cfunc(types.void(types.voidptr), cache=True)
def kernel(job):
    """What each thread of a team does: take a few genes, until none are left.

    A job is a row of numbers: genes taken, draws, genes, genes in a row of both expressions (twice)
    and the addresses of the job, of both expressions, of the pseudocount and delta, and of the
    results, [7, genes]: shares up and down, mean, median, standard deviation, least, largest.
    """
    known = carray(job, 10, np.int64)
    n_draws, n_genes = known[1], known[2]
    one = carray(pointer_at(known[6]), (n_draws, known[3]), f32)
    other = carray(pointer_at(known[7]), (n_draws, known[4]), f32)
    given = carray(pointer_at(known[8]), 2, f32)
    results = carray(pointer_at(known[9]), (7, n_genes), f64)
    tile = np.empty((n_draws, GENES_PER_JOB), f32)
    values = np.empty(n_draws, f32)
    bins = np.empty(n_draws, np.int32)
    near = np.empty(n_draws + 1, f32)
    counted = np.empty(N_BINS, np.int64)
    while True:
        start = atomic_fetch_add(known[5], GENES_PER_JOB)
        if start >= n_genes:
            break
        n = min(GENES_PER_JOB, n_genes - start)
        for d in range(n_draws):
            log_fold_change(
                one[d, start : start + n], other[d, start : start + n], given[0], tile[d, :n]
            )
        for j in range(n):
            for d in range(n_draws):
                values[d] = tile[d, j]
            mean, variance = mean_and_variance(values)
            gene = start + j
            if mean != mean:
                for k in range(7):
                    results[k, gene] = mean
                continue
            low, high = min_max(values)
            up, down = count_beyond_delta(values, given[1])
            results[0, gene] = up / n_draws
            results[1, gene] = down / n_draws
            results[2, gene] = mean
            results[3, gene] = median(values, low, high, bins, counted, near)
            results[4, gene] = np.sqrt(variance)
            results[5, gene] = low
            results[6, gene] = high
