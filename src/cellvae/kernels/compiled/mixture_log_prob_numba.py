"""Log-probability of counts under a mixture, and its derivatives, as work for a team of threads."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.negative_binomial_numba import (
    log_factorial,
    negative_binomial_counts,
    negative_binomial_zeros,
    reciprocal,
)
from cellvae.kernels.compiled.vector_math_numba import (
    FASTMATH_FLAGS,
    ONE,
    exp32,
    f32,
    f64,
    i32,
    log32,
)

CELLS_PER_JOB = 4
"""Cells that a thread takes at a time."""
MIN_MEAN = f32(1e-20)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def combine_components(
    logits, value, other, grad_mu, grad_theta, grad_other_mu, grad_other_theta, grad_logits
):
    """Mixture of two components, in place of what they are by themselves.

    Parameters
    ----------
    logits
        Log-odds of the first component.
    value, grad_mu, grad_theta
        Log-probability under the first component, and its derivatives; afterwards the mixture's.
    other, grad_other_mu, grad_other_theta
        The same of the second.
    grad_logits
        Derivative by the log-odds.
    """
    for j in range(logits.shape[0]):
        odds = logits[j]
        excess = odds + (value[j] - other[j])
        small = exp32(-abs(odds))
        smaller = exp32(-abs(excess))
        inverse_odds = ONE / (ONE + small)
        inverse = ONE / (ONE + smaller)
        # Each component with the logarithm of its share, of which the larger is taken out.
        larger = value[j] + odds if excess > f32(0.0) else other[j]
        positive = odds if odds > f32(0.0) else f32(0.0)
        first = (ONE if excess > f32(0.0) else smaller) * inverse
        second = (smaller if excess > f32(0.0) else ONE) * inverse
        value[j] = larger - positive + log32((ONE + smaller) * inverse_odds)
        grad_mu[j] *= first
        grad_theta[j] *= first
        grad_other_mu[j] *= second
        grad_other_theta[j] *= second
        grad_logits[j] = first - (ONE if odds > f32(0.0) else small) * inverse_odds


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def component_log_prob(
    x, given_mu, theta, mu, inverse_theta, places, few, value, grad_mu, grad_theta
):
    """Log-probability of the counts of a cell under one component, and its derivatives.

    Parameters
    ----------
    x, given_mu, theta
        Counts, means and inverse dispersions.
    mu, inverse_theta, places, few
        Room to work in.
    value, grad_mu, grad_theta
        Log-probability; derivatives by the mean and by the inverse dispersion.
    """
    n_features = x.shape[0]
    for j in range(n_features):
        m = given_mu[j]
        mu[j] = MIN_MEAN if m < MIN_MEAN else m
    reciprocal(theta, inverse_theta)
    negative_binomial_zeros(mu, theta, inverse_theta, value, grad_mu, grad_theta)
    n = 0
    for j in range(n_features):
        places[n] = j
        n += x[j] != f32(0.0)
    for i in range(n):
        j = places[i]
        few[0, i] = x[j]
        few[1, i] = mu[j]
        few[2, i] = theta[j]
        few[3, i] = log_factorial(x[j])
    negative_binomial_counts(
        few[0, :n], few[1, :n], few[2, :n], few[3, :n], few[4, :n], few[5, :n], few[6, :n]
    )
    for i in range(n):
        j = places[i]
        value[j] = few[4, i]
        grad_mu[j] = few[5, i]
        grad_theta[j] = few[6, i]


@cfunc(types.void(types.voidptr), cache=True)
def kernel(job):
    """What each thread of a team does: take a few cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, features, the address of the job itself,
    and the addresses of counts, means and inverse dispersions of both components, log-odds, the
    log-probability, and the derivatives by the five. All arrays are [cells, features].
    """
    known = carray(job, 16, types.int64)
    n_cells, n_features = known[1], known[2]
    whole = (n_cells, n_features)
    x = carray(pointer_at(known[4]), whole, f32)
    mu, other_mu = (
        carray(pointer_at(known[5]), whole, f32),
        carray(pointer_at(known[6]), whole, f32),
    )
    theta, other_theta = (
        carray(pointer_at(known[7]), whole, f32),
        carray(pointer_at(known[8]), whole, f32),
    )
    logits = carray(pointer_at(known[9]), whole, f32)
    value = carray(pointer_at(known[10]), whole, f32)
    grad_mu, grad_other_mu = (
        carray(pointer_at(known[11]), whole, f32),
        carray(pointer_at(known[12]), whole, f32),
    )
    grad_theta, grad_other_theta = (
        carray(pointer_at(known[13]), whole, f32),
        carray(pointer_at(known[14]), whole, f32),
    )
    grad_logits = carray(pointer_at(known[15]), whole, f32)
    room, inverse_theta = np.empty(n_features, f32), np.empty(n_features, f32)
    other = np.empty(n_features, f32)
    places = np.empty(n_features + 1, i32)
    few = np.empty((7, n_features), f64)
    while True:
        start = atomic_fetch_add(known[3], CELLS_PER_JOB)
        if start >= n_cells:
            break
        for c in range(start, min(start + CELLS_PER_JOB, n_cells)):
            component_log_prob(
                x[c], mu[c], theta[c], room, inverse_theta, places, few,
                value[c], grad_mu[c], grad_theta[c],
            )  # fmt: skip
            component_log_prob(
                x[c], other_mu[c], other_theta[c], room, inverse_theta, places, few,
                other, grad_other_mu[c], grad_other_theta[c],
            )  # fmt: skip
            combine_components(
                logits[c], value[c], other, grad_mu[c], grad_theta[c], grad_other_mu[c],
                grad_other_theta[c], grad_logits[c],
            )  # fmt: skip
