"""Log-likelihood of the counts of a cell, and its derivatives, gene by gene.

Every function goes through the genes of one cell, or through its counts that are not zero, in one
pass that a compiler can put into vector instructions. Where a count is zero, the negative binomial
needs one logarithm and the Poisson none; log-gamma and digamma functions are computed only for the
other counts, in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cellvae.kernels.compiled.vector_math_numba import (
    FASTMATH_FLAGS,
    ONE,
    exp32,
    f32,
    f64,
    float32_bits,
    float32_from_bits,
    i32,
    log1p64,
    log32,
    log64,
)

LOG_FACTORIAL_TABLE = np.array([math.lgamma(n + 1.0) for n in range(2048)])
ABS_MASK, LOWEST_BITS = i32(0x7FFFFFFF), i32(-(2**31))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def max_sum(one, other):
    """Largest sum of two numbers at one place; any of them, or NaN, where one is NaN.

    Bits of numbers are compared, in their order: compilers do not put the largest of numbers that
    may be NaN into vector instructions.
    """
    most = LOWEST_BITS
    for j in range(one.shape[0]):
        given = float32_bits(one[j] + other[j])
        ordered = i32(given ^ ((given >> i32(31)) & ABS_MASK))
        most = ordered if ordered > most else most
    return float32_from_bits(i32(most ^ ((most >> i32(31)) & ABS_MASK)))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def exp_shifted(logits, constant, top, out):
    """Exponentials of logits and constants less the largest of them."""
    for j in range(out.shape[0]):
        out[j] = exp32((logits[j] + constant[j]) - top)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_into(one, other, out):
    """Sum of two numbers at each place."""
    for j in range(out.shape[0]):
        out[j] = one[j] + other[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def axpy(out, factor, values):
    """Add values times a factor."""
    for j in range(out.shape[0]):
        out[j] += factor * values[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def scale_clamp_(out, factor, least):
    """Multiply by a factor, in place, and replace what is below the least by it."""
    for j in range(out.shape[0]):
        value = out[j] * factor
        out[j] = least if value < least else value


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def reciprocal(values, out):
    """One over each value."""
    for j in range(out.shape[0]):
        out[j] = ONE / values[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def negative_binomial_zeros(mu, theta, inverse_theta, value, grad_mu, grad_theta):
    """Negative binomial at zero."""
    for j in range(mu.shape[0]):
        m = mu[j]
        t = theta[j]
        # log(1 + x), exact for a small x too, without a division of its own.
        x = m * inverse_theta[j]
        y = ONE + x
        inverse = ONE / (t + m)
        log_ratio = log32(y) + (x - (y - ONE)) * (t * inverse)
        value[j] = -t * log_ratio
        grad_mu[j] = -t * inverse
        grad_theta[j] = m * inverse - log_ratio


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def zero_inflated_zeros(dropout, value, grad_mu, grad_theta, grad_dropout):
    """Zero-inflated distribution at zero, from value and derivatives without inflation."""
    for j in range(dropout.shape[0]):
        p = dropout[j]
        plain = value[j]
        other = exp32(-abs(p))
        excess = p - plain
        smaller = exp32(-abs(excess))
        inverse_odds = ONE / (ONE + other)
        inverse = ONE / (ONE + smaller)
        larger = p if excess > f32(0.0) else plain
        positive = p if p > f32(0.0) else f32(0.0)
        value[j] = larger - positive + log32((ONE + smaller) * inverse_odds)
        replaced = (ONE if excess > f32(0.0) else smaller) * inverse
        kept = (smaller if excess > f32(0.0) else ONE) * inverse
        grad_dropout[j] = replaced - (ONE if p > f32(0.0) else other) * inverse_odds
        grad_mu[j] *= kept
        grad_theta[j] *= kept


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log_zero_probability(p, log_odds, rate):
    """Minus the logarithm of the probability that a zero is not structural, and that it is."""
    for i in range(p.shape[0]):
        given = p[i]
        other = exp32(-abs(given))
        positive = given if given > f32(0.0) else f32(0.0)
        log_odds[i] = positive + log32(ONE + other)
        rate[i] = (ONE if given > f32(0.0) else other) / (ONE + other)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def poisson_zeros(mu, value, grad_mu):
    """Poisson at zero."""
    for j in range(mu.shape[0]):
        value[j] = -mu[j]
        grad_mu[j] = -ONE


# Coefficients of Stirling's series and of its derivative.
S0, S1, S2, S3 = 1 / 12, 1 / 360, 1 / 1260, 1 / 1680
D0, D1, D2, D3 = 1 / 12, 1 / 120, 1 / 252, 1 / 240


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def rising_factorial(b):
    """Product of b, b + 1, ... b + 7."""
    outer = (b * (b + 7.0)) * ((b + 1.0) * (b + 6.0))
    return outer * (((b + 2.0) * (b + 5.0)) * ((b + 3.0) * (b + 4.0)))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def rising_factorial_grad(b):
    """Derivative of the product by b."""
    p = b * (b + 7.0)
    q = (b + 1.0) * (b + 6.0)
    r = (b + 2.0) * (b + 5.0)
    s = (b + 3.0) * (b + 4.0)
    return (2.0 * b + 7.0) * ((p + q) * r * s + (r + s) * p * q)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log_factorial(count):
    """Logarithm of the factorial of a count, of the gamma function where it is no whole number."""
    whole = int(count) if f32(0.0) < count < f32(2048.0) else 0
    return LOG_FACTORIAL_TABLE[whole] if whole == count else math.lgamma(f64(count) + 1.0)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def negative_binomial_counts(x, mu, theta, log_factorial, value, grad_mu, grad_theta):
    """Negative binomial at counts above zero.

    The recurrence of the gamma function moves its arguments 8 up, where four terms of Stirling's
    series are exact (DLMF 5.11.1 and 5.11.2). What is large cancels on paper.
    """
    for i in range(x.shape[0]):
        n = x[i]
        m = mu[i]
        t = theta[i]
        b = n + t
        high_t = t + 8.0
        high_b = b + 8.0
        steps_t = rising_factorial(t)
        steps_b = rising_factorial(b)
        # A division takes as long as ten products: one for several numbers at a time.
        both = t + m
        shared = 1.0 / (t * m * both)
        over_t = shared * m * both
        over_m = shared * t * both
        over_both = shared * t * m
        shared = 1.0 / (high_t * high_b)
        inverse_t = shared * high_b
        inverse_b = shared * high_t
        shared = 1.0 / (steps_t * steps_b)
        over_steps_t = shared * steps_b
        over_steps_b = shared * steps_t
        q = inverse_t * inverse_t
        w = inverse_b * inverse_b
        series_t = inverse_t * (S0 - q * (S1 - q * (S2 - q * S3)))
        series_b = inverse_b * (S0 - w * (S1 - w * (S2 - w * S3)))
        by_n = log1p64(n * inverse_t, high_t * inverse_b)
        by_t = log1p64(m * over_t, t * over_both)
        gammas = (high_b - 0.5) * by_n - n + series_b - series_t + log64(steps_t * over_steps_b)
        value[i] = gammas + n * log64(high_t * m * over_t) - b * by_t - log_factorial[i]
        slope_t = q * (D0 - q * (D1 - q * (D2 - q * D3)))
        slope_b = w * (D0 - w * (D1 - w * (D2 - w * D3)))
        digammas = by_n - 0.5 * (inverse_b - inverse_t) - (slope_b - slope_t)
        digammas += (
            rising_factorial_grad(t) * over_steps_t - rising_factorial_grad(b) * over_steps_b
        )
        grad_mu[i] = (n - m) * over_m * (t * over_both)
        grad_theta[i] = digammas - by_t + (m - n) * over_both


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def poisson_counts(x, mu, log_factorial, value, grad_mu):
    """Poisson at counts above zero."""
    for i in range(x.shape[0]):
        m = mu[i]
        value[i] = x[i] * log64(m) - m - log_factorial[i]
        grad_mu[i] = (x[i] - m) / m


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def multiply_inplace(grad_mu, mu):
    """Derivatives by the logarithm of the mean, in place."""
    for j in range(mu.shape[0]):
        grad_mu[j] *= mu[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def softmax_backward(by_log_mu, mu, mean):
    """Derivatives by the logits of shares, in place; `mean` is their sum over the size."""
    for j in range(mu.shape[0]):
        by_log_mu[j] -= mu[j] * mean
