"""Log-likelihood of detected regions, and its derivatives, as work for a team of threads."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.negative_binomial_numba import add_into, axpy
from cellvae.kernels.compiled.vector_math_numba import (
    FASTMATH_FLAGS,
    ONE,
    exp32,
    f32,
    i32,
    log32,
    sum_unordered,
)

MIN_PROBABILITY = f32(1.1754944e-38)
"""Least chance of not being detected."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def undetected_log_prob(logits, chance, rarer, value, grad_logits, by_factor):
    """Regions that are not detected.

    What is small is a sum of small numbers that are positive: the chance not to be accessible, and
    that to be accessible and missed.

    Parameters
    ----------
    logits
        Log-odds of a region being accessible.
    chance, rarer
        Chance that an accessible region is detected, and one less it.
    value
        Log-probability.
    grad_logits, by_factor
        Derivatives by the logits and the logarithm of the chance.
    """
    for j in range(logits.shape[0]):
        odds = logits[j]
        other = exp32(-abs(odds))
        inverse = ONE / (ONE + other)
        likely = (ONE if odds > f32(0.0) else other) * inverse
        unlikely = (other if odds > f32(0.0) else ONE) * inverse
        missed = unlikely + likely * rarer[j]
        # NaN is neither above nor below.
        missed = MIN_PROBABILITY if missed < MIN_PROBABILITY else missed
        slope = -likely * chance[j] / missed
        value[j] = log32(missed)
        by_factor[j] = slope
        grad_logits[j] = slope * unlikely


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def detected_log_prob(logits, value, grad_logits):
    """Accessibility of regions that are detected: its logarithm, and the derivative of it."""
    for i in range(logits.shape[0]):
        odds = logits[i]
        other = exp32(-abs(odds))
        value[i] = (odds if odds < f32(0.0) else f32(0.0)) - log32(ONE + other)
        grad_logits[i] = (other if odds > f32(0.0) else ONE) / (ONE + other)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def detection_factors(depth, rarer_depth, of_region, rarer_region, chance, rarer):
    """Chance that an accessible region of a cell is detected, and one less it."""
    for j in range(chance.shape[0]):
        chance[j] = depth * of_region[j]
        rarer[j] = rarer_depth + depth * rarer_region[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def detection_log_prob_rows(
    start, end, counts, entries, genes, starts, logits, constant,
    log_depth, depth, rarer_depth, log_factor, factor, rarer_factor, weight,
    wanted, value, grad_depth, grad_logits, grad_region,
):  # fmt: skip
    """Log-likelihood of cells from `start` to before `end`.

    Parameters
    ----------
    start, end
        Range of the cells.
    counts
        Counts, [cells, regions]; [0, 0] where they are given by their entries.
    entries, genes, starts
        Counts that are not zero, the region of each, and where each cell begins; empty where all
        are given.
    logits, constant
        Log-odds of a region being accessible, [cells, regions], and what is added to those of every
        cell, [regions].
    log_depth, depth, rarer_depth
        Chance that an accessible region is detected in each cell: its logarithm, the chance, and
        one less it, [cells].
    log_factor, factor, rarer_factor
        The same by region, [regions].
    weight
        What each cell counts for in `grad_region`, [cells].
    wanted
        Whether derivatives are.
    value, grad_depth
        Log-likelihood of each cell and its derivative by the logarithm of the depth, [cells].
    grad_logits
        Derivatives, [cells, regions]; [1, regions] where they are not wanted. They may take the
        place of the logits.
    grad_region
        Sums over the cells of the derivatives by logits and factors, [2, regions].
    """
    n_regions = logits.shape[1]
    sparse = starts.shape[0] > 0
    odds = np.empty(n_regions, f32)
    chance, rarer = np.empty(n_regions, f32), np.empty(n_regions, f32)
    values, by_factor = np.empty(n_regions, f32), np.empty(n_regions, f32)
    places = np.empty(n_regions + 1, i32)
    few = np.empty((3, n_regions), f32)
    grad_region[:] = f32(0.0)
    for c in range(start, end):
        row = c if wanted else 0
        add_into(logits[c], constant, odds)
        detection_factors(depth[c], rarer_depth[c], factor, rarer_factor, chance, rarer)
        undetected_log_prob(odds, chance, rarer, values, grad_logits[row], by_factor)
        n = 0
        if sparse:
            for i in range(starts[c], starts[c + 1]):
                places[n] = genes[i]
                n += entries[i] > f32(0.0)
        else:
            x = counts[c]
            for j in range(n_regions):
                places[n] = j
                n += x[j] > f32(0.0)
        for i in range(n):
            few[0, i] = odds[places[i]]
        detected_log_prob(few[0, :n], few[1, :n], few[2, :n])
        for i in range(n):
            j = places[i]
            values[j] = few[1, i] + (log_depth[c] + log_factor[j])
            grad_logits[row, j] = few[2, i]
            by_factor[j] = ONE
        value[c] = sum_unordered(values)
        grad_depth[c] = sum_unordered(by_factor)
        if wanted:
            axpy(grad_region[0], weight[c], grad_logits[row])
            axpy(grad_region[1], weight[c], by_factor)


@cfunc(types.void(types.voidptr), cache=True)
def kernel(job):
    """What each thread of a team does: take a range of cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, regions, entries (-1 where all counts are
    given), the address of the job itself, whether derivatives are wanted, cells of a range, and the
    addresses of the arrays of :func:`cells`, of which the last has the sums of each range.
    """
    known = carray(job, 24, types.int64)
    n_cells, n_regions = known[1], known[2]
    n_entries = max(known[3], 0)
    sparse = known[3] >= 0
    wanted = known[5] != 0
    at_once = known[6]
    whole = (n_cells, n_regions)
    counts = carray(pointer_at(known[7]), (0 if sparse else n_cells, n_regions), f32)
    entries = carray(pointer_at(known[8]), n_entries, f32)
    genes = carray(pointer_at(known[9]), n_entries, i32)
    starts = carray(pointer_at(known[10]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(pointer_at(known[11]), whole, f32)
    constant = carray(pointer_at(known[12]), n_regions, f32)
    log_depth = carray(pointer_at(known[13]), n_cells, f32)
    depth = carray(pointer_at(known[14]), n_cells, f32)
    rarer_depth = carray(pointer_at(known[15]), n_cells, f32)
    log_factor = carray(pointer_at(known[16]), n_regions, f32)
    factor = carray(pointer_at(known[17]), n_regions, f32)
    rarer_factor = carray(pointer_at(known[18]), n_regions, f32)
    weight = carray(pointer_at(known[19]), n_cells, f32)
    value = carray(pointer_at(known[20]), n_cells, f32)
    grad_depth = carray(pointer_at(known[21]), n_cells, f32)
    grad_logits = carray(pointer_at(known[22]), whole, f32)
    grad_region = carray(
        pointer_at(known[23]), ((n_cells + at_once - 1) // at_once, 2, n_regions), f32
    )
    if not wanted:
        # One row for each thread, since nobody reads it.
        grad_logits = np.empty((1, n_regions), f32)
        grad_region = np.empty((1, 2, n_regions), f32)
    while True:
        start = atomic_fetch_add(known[4], at_once)
        if start >= n_cells:
            break
        detection_log_prob_rows(
            start, min(start + at_once, n_cells), counts, entries, genes, starts, logits, constant,
            log_depth, depth, rarer_depth, log_factor, factor, rarer_factor, weight,
            wanted, value, grad_depth, grad_logits, grad_region[start // at_once if wanted else 0],
        )  # fmt: skip
