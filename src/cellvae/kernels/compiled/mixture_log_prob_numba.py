"""Kernels of mixtures of two negative binomials: `mixture_log_prob` and `protein_elbo`."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.negative_binomial_numba import (
    COUNT,
    GRAD_MU,
    GRAD_THETA,
    LOG_FACTORIAL,
    LOG_PROB,
    MEAN,
    N_WORK_ROWS,
    THETA,
    log_factorial,
    negative_binomial_counts,
    negative_binomial_zeros,
    reciprocal,
)
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    HALF,
    ONE,
    exp32,
    f32,
    f64,
    i32,
    log32,
    sum_unordered,
)
from cellvae.kernels.compiled.job_layouts import MIXTURE_LOG_PROB, PROTEIN_ELBO
from cellvae.kernels.kernel_cache import compile_kernel

CELLS_PER_STEP = 4
"""Cells that a thread computes at a time."""
MEAN_SLOPE, RATIO_SLOPE, LOGITS_SLOPE, THETA_SLOPE = range(4)
"""Rows of the derivatives of the log-probability of proteins."""
LOG_2_PI = f32(math.log(2 * math.pi))


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
    clamped_mu[:] = mu
    reciprocal(theta, inverse_theta)
    negative_binomial_zeros(clamped_mu, ONE, theta, inverse_theta, log_prob, grad_mu, grad_theta)
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


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def background_kl(
    loc, scale, prior_loc, prior_log_scale, log_efficiency, logits, measured, penalty, out
):
    """Terms of the background of the proteins of a cell: see `ProteinElbo.kl`."""
    for j in range(out.shape[0]):
        precision = exp32(f32(-2.0) * prior_log_scale[j])
        distance = loc[j] - prior_loc[j]
        kl = (
            prior_log_scale[j]
            - log32(scale[j])
            + HALF * ((scale[j] * scale[j] + distance * distance) * precision - ONE)
        )
        e = log_efficiency[j]
        odds = logits[j]
        softplus = (f32(0.0) if odds > f32(0.0) else -odds) + log32(ONE + exp32(-abs(odds)))
        out[j] = (
            (kl if measured[j] else f32(0.0)) + e + HALF * (e * e + LOG_2_PI) + penalty * softplus
        )


@compile_kernel
def protein_elbo_kernel(job):
    """Compute a few cells of a `ProteinElboJob` at a time until none are left."""
    at = PROTEIN_ELBO
    fields = carray(job, len(at), types.int64)
    n_cells, n_proteins = fields[at.n_cells], fields[at.n_proteins]
    n_batches, n_panels = fields[at.n_batches], fields[at.n_panels]
    shape = (n_cells, n_proteins)
    counts = carray(pointer_at(fields[at.counts]), shape, f32)
    noise = carray(pointer_at(fields[at.noise]), shape, f32)
    batch = carray(pointer_at(fields[at.batch]), n_cells, types.int64)
    panel = carray(pointer_at(fields[at.panel]), n_cells, types.int64)
    measured = carray(pointer_at(fields[at.measured]), (n_panels, n_proteins), types.uint8)
    penalty = carray(pointer_at(fields[at.penalty]), 1, f32)[0]
    loc = carray(pointer_at(fields[at.loc]), shape, f32)
    scale = carray(pointer_at(fields[at.scale]), shape, f32)
    ratio = carray(pointer_at(fields[at.ratio]), shape, f32)
    logits = carray(pointer_at(fields[at.logits]), shape, f32)
    theta = carray(pointer_at(fields[at.theta]), (fields[at.n_theta_rows], n_proteins), f32)
    log_efficiency = carray(pointer_at(fields[at.log_efficiency]), (n_proteins, n_batches), f32)
    prior_loc = carray(pointer_at(fields[at.prior_loc]), (n_proteins, n_panels), f32)
    prior_log_scale = carray(pointer_at(fields[at.prior_log_scale]), (n_proteins, n_panels), f32)
    terms = carray(pointer_at(fields[at.terms]), (2, n_cells), f32)
    slopes = carray(pointer_at(fields[at.slopes]), (4, n_cells, n_proteins), f32)
    of_cell = np.empty((9, n_proteins), f32)
    mu1, mu2, clamped_mu, inverse_theta, log_prob, log_prob2 = of_cell[:6]
    grad_theta2, background, efficiency = of_cell[6:]
    nonzero = np.empty(n_proteins + 1, i32)
    work = np.empty((N_WORK_ROWS, n_proteins), f64)
    while True:
        start = atomic_fetch_add(job, at.next_cell, CELLS_PER_STEP)
        if start >= n_cells:
            break
        for c in range(start, min(start + CELLS_PER_STEP, n_cells)):
            t = theta[c if theta.shape[0] > 1 else 0]
            has_counts = measured[panel[c]]
            mean_slope, ratio_slope = slopes[MEAN_SLOPE, c], slopes[RATIO_SLOPE, c]
            logits_slope, theta_slope = slopes[LOGITS_SLOPE, c], slopes[THETA_SLOPE, c]
            for j in range(n_proteins):
                efficiency[j] = log_efficiency[j, batch[c]]
                mu1[j] = exp32(loc[c, j] + scale[c, j] * noise[c, j] + efficiency[j])
                mu2[j] = mu1[j] * ratio[c, j]
            component_log_prob(
                counts[c], mu1, t, clamped_mu, inverse_theta, nonzero, work,
                log_prob, mean_slope, theta_slope,
            )  # fmt: skip
            component_log_prob(
                counts[c], mu2, t, clamped_mu, inverse_theta, nonzero, work,
                log_prob2, ratio_slope, grad_theta2,
            )  # fmt: skip
            combine_components(
                logits[c], log_prob, log_prob2, mean_slope, theta_slope, ratio_slope,
                grad_theta2, logits_slope,
            )  # fmt: skip
            for j in range(n_proteins):
                mean_slope[j] = mean_slope[j] * mu1[j] + ratio_slope[j] * mu2[j]
                ratio_slope[j] *= mu1[j]
                theta_slope[j] += grad_theta2[j]
                if not has_counts[j]:
                    log_prob[j] = f32(0.0)
                    mean_slope[j] = f32(0.0)
                    ratio_slope[j] = f32(0.0)
                    logits_slope[j] = f32(0.0)
                    theta_slope[j] = f32(0.0)
            background_kl(
                loc[c], scale[c], prior_loc[:, panel[c]], prior_log_scale[:, panel[c]], efficiency,
                logits[c], has_counts, penalty, background,
            )  # fmt: skip
            terms[0, c] = sum_unordered(log_prob)
            terms[1, c] = sum_unordered(background)


@compile_kernel
def protein_elbo_grad_kernel(job):
    """Gradients of a `ProteinElboJob`, on one thread, from the derivatives by both terms."""
    at = PROTEIN_ELBO
    fields = carray(job, len(at), types.int64)
    n_cells, n_proteins = fields[at.n_cells], fields[at.n_proteins]
    n_batches, n_panels = fields[at.n_batches], fields[at.n_panels]
    shape = (n_cells, n_proteins)
    by_batch, by_panel = (n_proteins, n_batches), (n_proteins, n_panels)
    of_theta = (fields[at.n_theta_rows], n_proteins)
    noise = carray(pointer_at(fields[at.noise]), shape, f32)
    batch = carray(pointer_at(fields[at.batch]), n_cells, types.int64)
    panel = carray(pointer_at(fields[at.panel]), n_cells, types.int64)
    measured = carray(pointer_at(fields[at.measured]), (n_panels, n_proteins), types.uint8)
    penalty = carray(pointer_at(fields[at.penalty]), 1, f32)[0]
    loc = carray(pointer_at(fields[at.loc]), shape, f32)
    scale = carray(pointer_at(fields[at.scale]), shape, f32)
    logits = carray(pointer_at(fields[at.logits]), shape, f32)
    log_efficiency = carray(pointer_at(fields[at.log_efficiency]), by_batch, f32)
    prior_loc = carray(pointer_at(fields[at.prior_loc]), by_panel, f32)
    prior_log_scale = carray(pointer_at(fields[at.prior_log_scale]), by_panel, f32)
    terms = carray(pointer_at(fields[at.terms]), (2, n_cells), f32)
    slopes = carray(pointer_at(fields[at.slopes]), (4, n_cells, n_proteins), f32)
    grad_loc = carray(pointer_at(fields[at.grad_loc]), shape, f32)
    grad_scale = carray(pointer_at(fields[at.grad_scale]), shape, f32)
    grad_ratio = carray(pointer_at(fields[at.grad_ratio]), shape, f32)
    grad_logits = carray(pointer_at(fields[at.grad_logits]), shape, f32)
    grad_theta = carray(pointer_at(fields[at.grad_theta]), of_theta, f32)
    grad_log_efficiency = carray(pointer_at(fields[at.grad_log_efficiency]), by_batch, f32)
    grad_prior_loc = carray(pointer_at(fields[at.grad_prior_loc]), by_panel, f32)
    grad_prior_log_scale = carray(pointer_at(fields[at.grad_prior_log_scale]), by_panel, f32)
    grad_theta[:] = f32(0.0)
    grad_log_efficiency[:] = f32(0.0)
    grad_prior_loc[:] = f32(0.0)
    grad_prior_log_scale[:] = f32(0.0)
    for c in range(n_cells):
        of_log_prob, of_kl = terms[0, c], terms[1, c]
        theta_row = c if grad_theta.shape[0] > 1 else 0
        b, k = batch[c], panel[c]
        for j in range(n_proteins):
            by_mean = of_log_prob * slopes[MEAN_SLOPE, c, j]
            precision = exp32(f32(-2.0) * prior_log_scale[j, k])
            distance = loc[c, j] - prior_loc[j, k]
            width = scale[c, j]
            counted = of_kl if measured[k, j] else f32(0.0)
            by_loc = counted * distance * precision
            excess = (width * width + distance * distance) * precision - ONE
            odds = logits[c, j]
            small = exp32(-abs(odds))
            foreground = (small if odds > f32(0.0) else ONE) / (ONE + small)
            grad_loc[c, j] = by_mean + by_loc
            grad_scale[c, j] = by_mean * noise[c, j] + counted * (width * precision - ONE / width)
            grad_ratio[c, j] = of_log_prob * slopes[RATIO_SLOPE, c, j]
            grad_logits[c, j] = (
                of_log_prob * slopes[LOGITS_SLOPE, c, j] - of_kl * penalty * foreground
            )
            grad_theta[theta_row, j] += of_log_prob * slopes[THETA_SLOPE, c, j]
            grad_log_efficiency[j, b] += by_mean + of_kl * (ONE + log_efficiency[j, b])
            grad_prior_loc[j, k] -= by_loc
            grad_prior_log_scale[j, k] -= counted * excess
