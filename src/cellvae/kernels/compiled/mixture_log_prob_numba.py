"""Kernel of `mixture_log_prob`: two negative binomials, and derivatives."""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.job_layouts import MIXTURE_LOG_PROB
from cellvae.kernels.compiled.kernel_cache import compile_kernel
from cellvae.kernels.compiled.negative_binomial_numba import (
    COUNT,
    GRAD_MU,
    GRAD_THETA,
    LOG_FACTORIAL,
    LOG_PROB,
    MEAN,
    MIN_MEAN,
    N_WORK_ROWS,
    THETA,
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

CELLS_PER_STEP = 4
"""Cells that a thread computes at a time."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def combine_components(
    logits, log_prob, log_prob2, grad_mu1, grad_theta1, grad_mu2, grad_theta2, grad_logits
):
    """Log-probability of the mixture, and its derivatives, from those of the components, in place.

    Parameters
    ----------
    logits
        Log-odds of the first component.
    log_prob
        Log-probability under the first component on entry, of the mixture on return.
    log_prob2
        Log-probability under the second component.
    grad_mu1, grad_theta1, grad_mu2, grad_theta2
        Derivatives of the log-probability of each component on entry, of the mixture on return.
    grad_logits
        Derivative by the log-odds.
    """
    for j in range(logits.shape[0]):
        odds = logits[j]
        excess = odds + (log_prob[j] - log_prob2[j])
        small = exp32(-abs(odds))
        smaller = exp32(-abs(excess))
        inverse_odds = ONE / (ONE + small)
        inverse = ONE / (ONE + smaller)
        # Log-sum-exp of the weighted components: the larger one is factored out.
        larger = log_prob[j] + odds if excess > f32(0.0) else log_prob2[j]
        positive = odds if odds > f32(0.0) else f32(0.0)
        first = (ONE if excess > f32(0.0) else smaller) * inverse
        second = (smaller if excess > f32(0.0) else ONE) * inverse
        log_prob[j] = larger - positive + log32((ONE + smaller) * inverse_odds)
        grad_mu1[j] *= first
        grad_theta1[j] *= first
        grad_mu2[j] *= second
        grad_theta2[j] *= second
        grad_logits[j] = first - (ONE if odds > f32(0.0) else small) * inverse_odds


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def component_log_prob(
    x, mu, theta, clamped_mu, inverse_theta, nonzero, work, log_prob, grad_mu, grad_theta
):
    """Log-probability of the counts of a cell under one component, and its derivatives.

    Parameters
    ----------
    x, mu, theta
        Counts, means and inverse dispersions.
    clamped_mu, inverse_theta, nonzero, work
        Work arrays.
    log_prob, grad_mu, grad_theta
        Log-probability; derivatives by the mean and by the inverse dispersion.
    """
    n_features = x.shape[0]
    for j in range(n_features):
        m = mu[j]
        clamped_mu[j] = MIN_MEAN if m < MIN_MEAN else m
    reciprocal(theta, inverse_theta)
    negative_binomial_zeros(clamped_mu, theta, inverse_theta, log_prob, grad_mu, grad_theta)
    n = 0
    for j in range(n_features):
        nonzero[n] = j
        n += x[j] != f32(0.0)
    for i in range(n):
        j = nonzero[i]
        work[COUNT, i] = x[j]
        work[MEAN, i] = clamped_mu[j]
        work[THETA, i] = theta[j]
        work[LOG_FACTORIAL, i] = log_factorial(x[j])
    negative_binomial_counts(
        work[COUNT, :n], work[MEAN, :n], work[THETA, :n], work[LOG_FACTORIAL, :n],
        work[LOG_PROB, :n], work[GRAD_MU, :n], work[GRAD_THETA, :n],
    )  # fmt: skip
    for i in range(n):
        j = nonzero[i]
        log_prob[j] = work[LOG_PROB, i]
        grad_mu[j] = work[GRAD_MU, i]
        grad_theta[j] = work[GRAD_THETA, i]


@compile_kernel
def mixture_log_prob_kernel(job):
    """Compute a few cells of a `MixtureLogProbJob` at a time until none are left."""
    at = MIXTURE_LOG_PROB
    fields = carray(job, len(at), types.int64)
    n_cells, n_features = fields[at.n_cells], fields[at.n_features]
    shape = (n_cells, n_features)
    counts = carray(pointer_at(fields[at.counts]), shape, f32)
    mu1 = carray(pointer_at(fields[at.mu1]), shape, f32)
    mu2 = carray(pointer_at(fields[at.mu2]), shape, f32)
    theta1 = carray(pointer_at(fields[at.theta1]), shape, f32)
    theta2 = carray(pointer_at(fields[at.theta2]), shape, f32)
    logits = carray(pointer_at(fields[at.logits]), shape, f32)
    log_prob = carray(pointer_at(fields[at.log_prob]), shape, f32)
    grad_mu1 = carray(pointer_at(fields[at.grad_mu1]), shape, f32)
    grad_mu2 = carray(pointer_at(fields[at.grad_mu2]), shape, f32)
    grad_theta1 = carray(pointer_at(fields[at.grad_theta1]), shape, f32)
    grad_theta2 = carray(pointer_at(fields[at.grad_theta2]), shape, f32)
    grad_logits = carray(pointer_at(fields[at.grad_logits]), shape, f32)
    clamped_mu, inverse_theta = np.empty(n_features, f32), np.empty(n_features, f32)
    log_prob2 = np.empty(n_features, f32)
    nonzero = np.empty(n_features + 1, i32)
    work = np.empty((N_WORK_ROWS, n_features), f64)
    while True:
        start = atomic_fetch_add(job, at.next_cell, CELLS_PER_STEP)
        if start >= n_cells:
            break
        for c in range(start, min(start + CELLS_PER_STEP, n_cells)):
            component_log_prob(
                counts[c], mu1[c], theta1[c], clamped_mu, inverse_theta, nonzero, work,
                log_prob[c], grad_mu1[c], grad_theta1[c],
            )  # fmt: skip
            component_log_prob(
                counts[c], mu2[c], theta2[c], clamped_mu, inverse_theta, nonzero, work,
                log_prob2, grad_mu2[c], grad_theta2[c],
            )  # fmt: skip
            combine_components(
                logits[c], log_prob[c], log_prob2, grad_mu1[c], grad_theta1[c], grad_mu2[c],
                grad_theta2[c], grad_logits[c],
            )  # fmt: skip
