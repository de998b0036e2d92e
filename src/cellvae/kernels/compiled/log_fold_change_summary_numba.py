"""Kernel of `log_fold_change_summary`: statistics of the log2 fold change of each gene."""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    LOG2_E,
    f32,
    f64,
    log32,
)
from cellvae.kernels.compiled.job_layouts import LOG_FOLD_CHANGE_ROWS, LOG_FOLD_CHANGE_SUMMARY
from cellvae.kernels.kernel_cache import compile_kernel

GENES_PER_CACHE_LINE = 16
"""Genes that a thread computes at a time: the number of float32 in a cache line."""
N_BINS = 1024
"""Bins of the histogram that the median is found with."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log2_ratio(first, second, pseudocount, out):
    """Log2 of the ratio of two expressions after adding a pseudocount to both."""
    for j in range(out.shape[0]):
        out[j] = (log32(first[j] + pseudocount) - log32(second[j] + pseudocount)) * LOG2_E


@njit(error_model="numpy", fastmath=True)
def mean_and_variance(values):
    """Mean, and variance with the number of values as the divisor."""
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
    """Smallest and largest value."""
    low = values[0]
    high = values[0]
    for i in range(values.shape[0]):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@njit(error_model="numpy", fastmath=True)
def count_beyond_delta(values, delta):
    """Number of values that are at least delta, and number of those below minus delta."""
    up = 0
    down = 0
    for i in range(values.shape[0]):
        up += values[i] >= delta
        down += values[i] < -delta
    return up, down


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def median(values, low, high, bins, histogram, candidates):
    """Median of values between `low` and `high`.

    Values are counted in a histogram; only those of the bins in the middle are sorted. `bins`,
    `histogram` and `candidates` are work arrays.
    """
    n = values.shape[0]
    if not high > low:
        return low
    factor = f32(N_BINS - 1) / (high - low)
    histogram[:] = 0
    for i in range(n):
        bins[i] = np.int32((values[i] - low) * factor)
    for i in range(n):
        histogram[bins[i]] += 1
    # Ranks of the value, or of the two values, in the middle.
    lower, upper = (n - 1) // 2, n // 2
    start = 0
    n_below = 0
    while n_below + histogram[start] <= lower:
        n_below += histogram[start]
        start += 1
    end = start
    n_up_to_end = n_below + histogram[start]
    while n_up_to_end <= upper:
        end += 1
        n_up_to_end += histogram[end]
    n_candidates = 0
    for i in range(n):
        candidates[n_candidates] = values[i]
        n_candidates += start <= bins[i] <= end
    ordered = np.sort(candidates[:n_candidates])
    return (ordered[lower - n_below] + ordered[upper - n_below]) * f32(0.5)


@compile_kernel
def log_fold_change_summary_kernel(job):
    """Compute tiles of the genes of a `LogFoldChangeSummaryJob` until none are left."""
    at, rows = LOG_FOLD_CHANGE_SUMMARY, LOG_FOLD_CHANGE_ROWS
    fields = carray(job, len(at), types.int64)
    n_draws, n_genes = fields[at.n_draws], fields[at.n_genes]
    first = carray(pointer_at(fields[at.first]), (n_draws, n_genes), f32)
    second = carray(pointer_at(fields[at.second]), (n_draws, n_genes), f32)
    pseudocount_and_delta = carray(pointer_at(fields[at.pseudocount_and_delta]), 2, f32)
    pseudocount, delta = pseudocount_and_delta[0], pseudocount_and_delta[1]
    statistics = carray(pointer_at(fields[at.statistics]), (len(rows), n_genes), f64)
    tile = np.empty((n_draws, GENES_PER_CACHE_LINE), f32)
    values = np.empty(n_draws, f32)
    bins = np.empty(n_draws, np.int32)
    candidates = np.empty(n_draws + 1, f32)
    histogram = np.empty(N_BINS, np.int64)
    while True:
        start = atomic_fetch_add(job, at.next_gene, GENES_PER_CACHE_LINE)
        if start >= n_genes:
            break
        n = min(GENES_PER_CACHE_LINE, n_genes - start)
        for d in range(n_draws):
            log2_ratio(
                first[d, start : start + n], second[d, start : start + n], pseudocount, tile[d, :n]
            )
        for j in range(n):
            for d in range(n_draws):
                values[d] = tile[d, j]
            mean, variance = mean_and_variance(values)
            gene = start + j
            if mean != mean:
                for k in range(len(rows)):
                    statistics[k, gene] = mean
                continue
            low, high = min_max(values)
            up, down = count_beyond_delta(values, delta)
            statistics[rows.up, gene] = up / n_draws
            statistics[rows.down, gene] = down / n_draws
            statistics[rows.mean, gene] = mean
            statistics[rows.median, gene] = median(values, low, high, bins, histogram, candidates)
            statistics[rows.std, gene] = np.sqrt(variance)
            statistics[rows.min, gene] = low
            statistics[rows.max, gene] = high
