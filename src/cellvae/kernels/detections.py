"""Log-likelihood of detected regions, and its derivatives, as work for a team of threads."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.elementary import EXACT, ONE, exp32, f32, f64, i32, log32, total
from cellvae.kernels.shared_job import at, taken_from

AT_ONCE = 4
"""Cells that a thread takes at a time."""
TINY = f32(1.1754944e-38)
"""Least chance of not being detected."""


@njit(error_model="numpy", fastmath=EXACT)
def misses(logits, chance, rarer, value, by_logits, by_factor):
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
    by_logits, by_factor
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
        missed = TINY if missed < TINY else missed
        slope = -likely * chance[j] / missed
        value[j] = log32(missed)
        by_factor[j] = slope
        by_logits[j] = slope * unlikely


@njit(error_model="numpy", fastmath=EXACT)
def hits(logits, value, by_logits):
    """Accessibility of regions that are detected: its logarithm, and the derivative of it."""
    for i in range(logits.shape[0]):
        odds = logits[i]
        other = exp32(-abs(odds))
        value[i] = (odds if odds < f32(0.0) else f32(0.0)) - log32(ONE + other)
        by_logits[i] = (other if odds > f32(0.0) else ONE) / (ONE + other)


@njit(error_model="numpy", fastmath=EXACT)
def factors(depth, rarer_depth, of_region, rarer_region, chance, rarer):
    """Chance that an accessible region of a cell is detected, and one less it."""
    for j in range(chance.shape[0]):
        chance[j] = depth * of_region[j]
        rarer[j] = rarer_depth + depth * rarer_region[j]


@njit(error_model="numpy", fastmath=EXACT)
def cells(
    start, end, counts, entries, genes, starts, logits, log_depth, log_factor,
    value, by_logits, by_depth, by_factor,
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
    logits
        Log-odds of a region being accessible, [cells, regions].
    log_depth, log_factor
        Logarithm of the chance that an accessible region is detected, by cell and by region.
    value, by_depth
        Log-likelihood of each cell and its derivative by the logarithm of the depth, [cells].
    by_logits, by_factor
        Derivatives, [cells, regions]; [1, regions], of the last cell, where not asked for.
    """
    n_regions = logits.shape[1]
    sparse = starts.shape[0] > 0
    of_region, rarer_region = np.empty(n_regions, f32), np.empty(n_regions, f32)
    for j in range(n_regions):
        of_region[j] = math.exp(f64(log_factor[j]))
        rarer_region[j] = -math.expm1(f64(log_factor[j]))
    chance, rarer = np.empty(n_regions, f32), np.empty(n_regions, f32)
    values = np.empty(n_regions, f32)
    places = np.empty(n_regions + 1, i32)
    few = np.empty((3, n_regions), f32)
    for c in range(start, end):
        row = c if by_logits.shape[0] > 1 else 0
        depth = f64(log_depth[c])
        factors(
            f32(math.exp(depth)), f32(-math.expm1(depth)), of_region, rarer_region, chance, rarer
        )
        misses(logits[c], chance, rarer, values, by_logits[row], by_factor[row])
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
            few[0, i] = logits[c, places[i]]
        hits(few[0, :n], few[1, :n], few[2, :n])
        for i in range(n):
            j = places[i]
            values[j] = few[1, i] + (log_depth[c] + log_factor[j])
            by_logits[row, j] = few[2, i]
            by_factor[row, j] = ONE
        value[c] = total(values)
        by_depth[c] = total(by_factor[row])


@cfunc(types.void(types.voidptr), cache=True)
def work(job):
    """What each thread of a team does: take a few cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, regions, entries (-1 where all counts are
    given), the address of the job itself, whether derivatives by logits and factors are asked for,
    and the addresses of the arrays of :func:`cells`.
    """
    known = carray(job, 17, types.int64)
    n_cells, n_regions = known[1], known[2]
    n_entries = max(known[3], 0)
    sparse = known[3] >= 0
    whole = (n_cells, n_regions)
    counts = carray(at(known[6]), (0 if sparse else n_cells, n_regions), f32)
    entries = carray(at(known[7]), n_entries, f32)
    genes = carray(at(known[8]), n_entries, i32)
    starts = carray(at(known[9]), n_cells + 1 if sparse else 0, types.int64)
    logits = carray(at(known[10]), whole, f32)
    log_depth = carray(at(known[11]), n_cells, f32)
    log_factor = carray(at(known[12]), n_regions, f32)
    value = carray(at(known[13]), n_cells, f32)
    by_logits = carray(at(known[14]), whole, f32)
    by_depth = carray(at(known[15]), n_cells, f32)
    by_factor = carray(at(known[16]), whole, f32)
    if known[5] == 0:
        by_logits = np.empty((1, n_regions), f32)
        by_factor = np.empty((1, n_regions), f32)
    while True:
        start = taken_from(known[4], AT_ONCE)
        if start >= n_cells:
            break
        cells(
            start, min(start + AT_ONCE, n_cells), counts, entries, genes, starts,
            logits, log_depth, log_factor, value, by_logits, by_depth, by_factor,
        )  # fmt: skip
