"""Zero inflation of a log-probability and its derivatives, for the genes or counts of a cell."""

from __future__ import annotations

from numba import njit

from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    ONE,
    exp32,
    f32,
    i32,
    log32,
)

MAX_LOG_ODDS = f32(40.0)
"""Logits of a structural zero above which its probability is one in single precision."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def zero_inflated_zeros(
    dropout, bias, odds, probability, log_prob, grad_mu, grad_theta, grad_dropout
):
    """Add zero inflation to the log-probability of zero and its derivatives, in place.

    Parameters
    ----------
    dropout, bias
        Two terms of the logits of a structural zero.
    odds, probability
        Memory for intermediate results.
    log_prob, grad_mu, grad_theta
        Log-probability without zero inflation, and its derivatives; updated.
    grad_dropout
        Derivative by the logits, written.
    """
    if both_are_tiny(dropout, bias, log_prob):
        zero_inflated_tiny_zeros(dropout, bias, log_prob, grad_mu, grad_theta, grad_dropout)
        return
    # Several short loops: the long chain of one would not fit into the window of instructions that
    # a processor reorders.
    exp_odds(dropout, bias, odds)
    exp_all(log_prob, probability)
    mix_zeros(odds, probability, log_prob, grad_mu, grad_theta, grad_dropout)
    log_inplace(log_prob)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def both_are_tiny(dropout, bias, log_prob):
    """Whether for some gene both the odds of a structural and of a sampled zero are below e^-60."""
    n_tiny = i32(0)
    for j in range(dropout.shape[0]):
        p = dropout[j] + bias[j]
        larger = p if p > log_prob[j] else log_prob[j]
        n_tiny += i32(larger < f32(-60.0))
    return n_tiny > 0


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def exp_odds(dropout, bias, odds):
    """Write the odds of a structural zero, at most e^40: further ones do not matter."""
    for j in range(odds.shape[0]):
        p = dropout[j] + bias[j]
        # The difference is NaN if p is infinite.
        odds[j] = exp32(MAX_LOG_ODDS if p > MAX_LOG_ODDS else p) + (p - p)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def exp_all(x, out):
    """Write the exponentials to `out`."""
    for j in range(out.shape[0]):
        out[j] = exp32(x[j])


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log_inplace(x):
    """Natural logarithms, in place."""
    for j in range(x.shape[0]):
        x[j] = log32(x[j])


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def mix_zeros(odds, probability, mixed, grad_mu, grad_theta, grad_dropout):
    """Probability of a zero of either kind, and the derivatives of its logarithm.

    Parameters
    ----------
    odds
        Odds of a structural zero.
    probability
        Probability of a sampled zero.
    mixed
        Probability of a zero, written.
    grad_mu, grad_theta
        Derivatives for a sampled zero; updated.
    grad_dropout
        Derivative by the logarithm of the odds, written.
    """
    for j in range(odds.shape[0]):
        s = odds[j]
        q = probability[j]
        a = ONE + s
        b = s + q
        shared = ONE / (a * b)
        sampled = q * (a * shared)
        mixed[j] = b * (b * shared)
        grad_dropout[j] = s * (ONE - q) * shared
        grad_mu[j] *= sampled
        grad_theta[j] *= sampled


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def zero_inflated_tiny_zeros(dropout, bias, log_prob, grad_mu, grad_theta, grad_dropout):
    """As :func:`zero_inflated_zeros`, for any logits and probabilities, in twice the time."""
    for j in range(dropout.shape[0]):
        p = dropout[j] + bias[j]
        plain = log_prob[j]
        small = exp32(-abs(p))
        excess = p - plain
        smaller = exp32(-abs(excess))
        inverse_odds = ONE / (ONE + small)
        inverse = ONE / (ONE + smaller)
        larger = p if excess > f32(0.0) else plain
        positive = p if p > f32(0.0) else f32(0.0)
        log_prob[j] = larger - positive + log32((ONE + smaller) * inverse_odds)
        # Posterior probabilities of a structural and of a sampled zero.
        structural = (ONE if excess > f32(0.0) else smaller) * inverse
        sampled = (smaller if excess > f32(0.0) else ONE) * inverse
        grad_dropout[j] = structural - (ONE if p > f32(0.0) else small) * inverse_odds
        grad_mu[j] *= sampled
        grad_theta[j] *= sampled


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def zero_inflated_counts(dropout, log_prob, grad_dropout):
    """Subtract log(1 + odds) from the log-probability of counts above zero.

    Parameters
    ----------
    dropout
        Logits of a structural zero.
    log_prob
        Log-probability without zero inflation; updated.
    grad_dropout
        Derivative by the logits, written.
    """
    for i in range(dropout.shape[0]):
        value = dropout[i]
        small = exp32(-abs(value))
        positive = value if value > f32(0.0) else f32(0.0)
        log_prob[i] -= positive + log32(ONE + small)
        grad_dropout[i] = -(ONE if value > f32(0.0) else small) / (ONE + small)
