"""Kernel of `bernoulli_log_prob`: log-probability of detected regions, and its derivatives."""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.negative_binomial_numba import add_into, axpy
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    ONE,
    exp32,
    f32,
    i32,
    log32,
    sum_unordered,
)
from cellvae.kernels.compiled.job_layouts import BERNOULLI_LOG_PROB
from cellvae.kernels.kernel_cache import compile_kernel

MIN_PROBABILITY = f32(1.1754944e-38)
"""Smallest probability of not being detected."""
LOGITS, LOG_ACCESSIBLE, GRAD_LOGITS = range(3)
"""Rows of the work array for the regions that are detected."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def undetected_log_prob(logits, detection, complement, log_prob, grad_logits, grad_log_detection):
    """Log-probability that regions are not detected, and its derivatives.

    It is the sum of two positive numbers, so that no digits are lost if it is small: the
    probability of being inaccessible, and that of being accessible and missed.

    Parameters
    ----------
    logits
        Log-odds of a region being accessible.
    detection, complement
        Probability that an accessible region is detected, and 1 minus it.
    log_prob
        Log-probability.
    grad_logits, grad_log_detection
        Derivatives by the logits and by the logarithm of `detection`.
    """
    for j in range(logits.shape[0]):
        odds = logits[j]
        small = exp32(-abs(odds))
        inverse = ONE / (ONE + small)
        accessible = (ONE if odds > f32(0.0) else small) * inverse
        inaccessible = (small if odds > f32(0.0) else ONE) * inverse
        missed = inaccessible + accessible * complement[j]
        # Written so that NaN stays NaN.
        missed = MIN_PROBABILITY if missed < MIN_PROBABILITY else missed
        slope = -accessible * detection[j] / missed
        log_prob[j] = log32(missed)
        grad_log_detection[j] = slope
        grad_logits[j] = slope * inaccessible


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def accessible_log_prob(logits, log_prob, grad_logits):
    """Log-probability that regions are accessible, and its derivative by the logits."""
    for i in range(logits.shape[0]):
        odds = logits[i]
        small = exp32(-abs(odds))
        log_prob[i] = (odds if odds < f32(0.0) else f32(0.0)) - log32(ONE + small)
        grad_logits[i] = (small if odds > f32(0.0) else ONE) / (ONE + small)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def detection_probabilities(
    depth, depth_complement, factor, factor_complement, detection, complement
):
    """Probability that an accessible region of a cell is detected, and 1 minus it."""
    for j in range(detection.shape[0]):
        detection[j] = depth * factor[j]
        complement[j] = depth_complement + depth * factor_complement[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def bernoulli_log_prob_rows(
    start, end, counts, values, indices, indptr, logits, logits_bias,
    log_depth, depth, depth_complement, log_factor, factor, factor_complement, cell_weight,
    need_grad, log_prob, grad_log_depth, grad_logits, grad_region,
):  # fmt: skip
    """Log-probability of the cells from `start` to before `end`.

    Parameters
    ----------
    start, end
        Range of cells.
    counts
        Dense counts, [cells, regions]; [0, regions] if they are sparse.
    values, indices, indptr
        Sparse counts in CSR format; empty if they are dense.
    logits, logits_bias
        Log-odds of a region being accessible without their bias, [cells, regions], and the bias,
        [regions].
    log_depth, depth, depth_complement
        Factor of each cell in the probability that an accessible region is detected: its logarithm,
        the factor, and 1 minus it, [cells].
    log_factor, factor, factor_complement
        The same for regions, [regions].
    cell_weight
        Weight of each cell in `grad_region`, [cells].
    need_grad
        Whether derivatives are needed.
    log_prob, grad_log_depth
        Log-probability of each cell and its derivative by `log_depth`, [cells].
    grad_logits
        Derivatives by the logits, [cells, regions]; [1, regions] if they are not needed. May be the
        memory of `logits`.
    grad_region
        Weighted sums over the cells of the derivatives by logits and log-factors, [2, regions].
    """
    n_regions = logits.shape[1]
    sparse = indptr.shape[0] > 0
    odds = np.empty(n_regions, f32)
    detection, complement = np.empty(n_regions, f32), np.empty(n_regions, f32)
    region_log_prob, grad_log_detection = np.empty(n_regions, f32), np.empty(n_regions, f32)
    detected = np.empty(n_regions + 1, i32)
    work = np.empty((3, n_regions), f32)
    grad_region[:] = f32(0.0)
    for c in range(start, end):
        row = c if need_grad else 0
        add_into(logits[c], logits_bias, odds)
        detection_probabilities(
            depth[c], depth_complement[c], factor, factor_complement, detection, complement
        )
        undetected_log_prob(
            odds, detection, complement, region_log_prob, grad_logits[row], grad_log_detection
        )
        n = 0
        if sparse:
            for i in range(indptr[c], indptr[c + 1]):
                detected[n] = indices[i]
                n += values[i] > f32(0.0)
        else:
            x = counts[c]
            for j in range(n_regions):
                detected[n] = j
                n += x[j] > f32(0.0)
        for i in range(n):
            work[LOGITS, i] = odds[detected[i]]
        accessible_log_prob(work[LOGITS, :n], work[LOG_ACCESSIBLE, :n], work[GRAD_LOGITS, :n])
        for i in range(n):
            j = detected[i]
            region_log_prob[j] = work[LOG_ACCESSIBLE, i] + (log_depth[c] + log_factor[j])
            grad_logits[row, j] = work[GRAD_LOGITS, i]
            grad_log_detection[j] = ONE
        log_prob[c] = sum_unordered(region_log_prob)
        grad_log_depth[c] = sum_unordered(grad_log_detection)
        if need_grad:
            axpy(grad_region[0], cell_weight[c], grad_logits[row])
            axpy(grad_region[1], cell_weight[c], grad_log_detection)


@compile_kernel
def bernoulli_log_prob_kernel(job):
    """Compute ranges of the cells of a `BernoulliLogProbJob` until none are left."""
    at = BERNOULLI_LOG_PROB
    fields = carray(job, len(at), types.int64)
    n_cells, n_regions = fields[at.n_cells], fields[at.n_regions]
    n_nonzero = max(fields[at.n_nonzero], 0)
    sparse = fields[at.n_nonzero] >= 0
    need_grad = fields[at.need_grad] != 0
    range_size = fields[at.cells_per_range]
    n_ranges = (n_cells + range_size - 1) // range_size
    shape = (n_cells, n_regions)
    counts = carray(pointer_at(fields[at.counts]), (0 if sparse else n_cells, n_regions), f32)
    values = carray(pointer_at(fields[at.values]), n_nonzero, f32)
    indices = carray(pointer_at(fields[at.indices]), n_nonzero, i32)
    indptr = carray(pointer_at(fields[at.indptr]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(pointer_at(fields[at.logits]), shape, f32)
    logits_bias = carray(pointer_at(fields[at.logits_bias]), n_regions, f32)
    log_depth = carray(pointer_at(fields[at.log_depth]), n_cells, f32)
    depth = carray(pointer_at(fields[at.depth]), n_cells, f32)
    depth_complement = carray(pointer_at(fields[at.depth_complement]), n_cells, f32)
    log_factor = carray(pointer_at(fields[at.log_factor]), n_regions, f32)
    factor = carray(pointer_at(fields[at.factor]), n_regions, f32)
    factor_complement = carray(pointer_at(fields[at.factor_complement]), n_regions, f32)
    cell_weight = carray(pointer_at(fields[at.cell_weight]), n_cells, f32)
    log_prob = carray(pointer_at(fields[at.log_prob]), n_cells, f32)
    grad_log_depth = carray(pointer_at(fields[at.grad_log_depth]), n_cells, f32)
    grad_logits = carray(pointer_at(fields[at.grad_logits]), shape, f32)
    grad_region = carray(pointer_at(fields[at.grad_region]), (n_ranges, 2, n_regions), f32)
    if not need_grad:
        # One row for each thread; nobody reads it.
        grad_logits = np.empty((1, n_regions), f32)
        grad_region = np.empty((1, 2, n_regions), f32)
    while True:
        start = atomic_fetch_add(job, at.next_cell, range_size)
        if start >= n_cells:
            break
        bernoulli_log_prob_rows(
            start, min(start + range_size, n_cells), counts, values, indices, indptr,
            logits, logits_bias, log_depth, depth, depth_complement,
            log_factor, factor, factor_complement, cell_weight,
            need_grad, log_prob, grad_log_depth, grad_logits,
            grad_region[start // range_size if need_grad else 0],
        )  # fmt: skip
