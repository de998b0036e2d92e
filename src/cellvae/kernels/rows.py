"""Log-likelihood of the counts of a cell, and its derivatives, gene by gene.

Every function goes through the genes of one cell, or through its counts that are not zero, in one
pass that a compiler can put into vector instructions. Where a count is zero, the negative binomial
needs one logarithm and the Poisson none; log-gamma and digamma functions are computed only for the
other counts, in double precision.
"""

from __future__ import annotations

from numba import njit

from cellvae.kernels.elementary import (
    EXACT,
    ONE,
    exp32,
    f32,
    log1p64,
    log32,
    log64,
)


@njit(error_model="numpy", fastmath=EXACT)
def shares(logits, top, out):
    """Exponentials of logits less the largest of them."""
    for j in range(out.shape[0]):
        out[j] = exp32(logits[j] - top)


@njit(error_model="numpy", fastmath=EXACT)
def scaled(out, factor, least):
    """Multiply by a factor, in place, and replace what is below the least by it."""
    for j in range(out.shape[0]):
        value = out[j] * factor
        out[j] = least if value < least else value


@njit(error_model="numpy", fastmath=EXACT)
def inverses(values, out):
    """One over each value."""
    for j in range(out.shape[0]):
        out[j] = ONE / values[j]


@njit(error_model="numpy", fastmath=EXACT)
def negative_binomial_zeros(mu, theta, inverse_theta, value, by_mu, by_theta):
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
        by_mu[j] = -t * inverse
        by_theta[j] = m * inverse - log_ratio


@njit(error_model="numpy", fastmath=EXACT)
def inflated_zeros(dropout, value, by_mu, by_theta, by_dropout):
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
        by_dropout[j] = replaced - (ONE if p > f32(0.0) else other) * inverse_odds
        by_mu[j] *= kept
        by_theta[j] *= kept


@njit(error_model="numpy", fastmath=EXACT)
def inflation(p, log_odds, rate):
    """Minus the logarithm of the probability that a zero is not structural, and that it is."""
    for i in range(p.shape[0]):
        given = p[i]
        other = exp32(-abs(given))
        positive = given if given > f32(0.0) else f32(0.0)
        log_odds[i] = positive + log32(ONE + other)
        rate[i] = (ONE if given > f32(0.0) else other) / (ONE + other)


@njit(error_model="numpy", fastmath=EXACT)
def poisson_zeros(mu, value, by_mu):
    """Poisson at zero."""
    for j in range(mu.shape[0]):
        value[j] = -mu[j]
        by_mu[j] = -ONE


@njit(error_model="numpy", fastmath=EXACT)
def rising(b):
    """Product of b, b + 1, ... b + 7."""
    outer = (b * (b + 7.0)) * ((b + 1.0) * (b + 6.0))
    return outer * (((b + 2.0) * (b + 5.0)) * ((b + 3.0) * (b + 4.0)))


@njit(error_model="numpy", fastmath=EXACT)
def rising_slope(b):
    """Derivative of the product by b."""
    p = b * (b + 7.0)
    q = (b + 1.0) * (b + 6.0)
    r = (b + 2.0) * (b + 5.0)
    s = (b + 3.0) * (b + 4.0)
    return (2.0 * b + 7.0) * ((p + q) * r * s + (r + s) * p * q)


@njit(error_model="numpy", fastmath=EXACT)
def negative_binomial_counts(x, mu, theta, log_factorial, value, by_mu, by_theta):
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
        steps_t = rising(t)
        steps_b = rising(b)
        inverse_t = 1.0 / high_t
        inverse_b = 1.0 / high_b
        q = inverse_t * inverse_t
        w = inverse_b * inverse_b
        series_t = inverse_t * (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q / 1680)))
        series_b = inverse_b * (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680)))
        by_n = log1p64(n * inverse_t)
        by_t = log1p64(m / t)
        gammas = (high_b - 0.5) * by_n - n + series_b - series_t + log64(steps_t / steps_b)
        value[i] = gammas + n * log64(high_t * (m / t)) - b * by_t - log_factorial[i]
        slope_t = q * (1 / 12 - q * (1 / 120 - q * (1 / 252 - q / 240)))
        slope_b = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w / 240)))
        digammas = by_n - 0.5 * (inverse_b - inverse_t) - (slope_b - slope_t)
        digammas += rising_slope(t) / steps_t - rising_slope(b) / steps_b
        inverse = 1.0 / (t + m)
        by_mu[i] = (n - m) / m * (t * inverse)
        by_theta[i] = digammas - by_t + (m - n) * inverse


@njit(error_model="numpy", fastmath=EXACT)
def poisson_counts(x, mu, log_factorial, value, by_mu):
    """Poisson at counts above zero."""
    for i in range(x.shape[0]):
        m = mu[i]
        value[i] = x[i] * log64(m) - m - log_factorial[i]
        by_mu[i] = (x[i] - m) / m


@njit(error_model="numpy", fastmath=EXACT)
def products(by_mu, mu):
    """Derivatives by the logarithm of the mean, in place."""
    for j in range(mu.shape[0]):
        by_mu[j] *= mu[j]


@njit(error_model="numpy", fastmath=EXACT)
def through_softmax(by_log_mu, mu, mean, out):
    """Derivatives by the logits of shares; `mean` is the sum of `by_log_mu` over the size."""
    for j in range(mu.shape[0]):
        out[j] = by_log_mu[j] - mu[j] * mean
