"""Negative binomial and Poisson log-probabilities of the counts of a cell, and their derivatives.

Every function loops once over the genes of one cell, or over its nonzero counts, in a form that
LLVM can vectorize. At a count of zero the negative binomial needs one logarithm and the Poisson
none; log-gamma and digamma functions are computed for nonzero counts only, in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cellvae.kernels.compiled.functions.vector_math_numba import (
    ABS_MASK,
    FASTMATH_FLAGS,
    ONE,
    SUM_FLAGS,
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
LOWEST_BITS = i32(-(2**31))
MIN_MEAN = f32(1e-20)
"""Smallest mean: its inverse still fits in 32 bits."""
COUNT, MEAN, THETA, LOG_FACTORIAL, LOG_PROB, GRAD_MU, GRAD_THETA = range(7)
"""Rows of a work array for the nonzero counts of a cell, in double precision."""
N_WORK_ROWS = 7


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add(x, y):
    """Sum of two numbers, which is not combined with others."""
    return x + y


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def max_sum(x, y):
    """Maximum of the elementwise sum of two arrays; if a sum is NaN, any of the sums or NaN.

    Bit patterns are compared as integers of the same order, because LLVM does not vectorize the
    maximum of floats that may be NaN.
    """
    largest = LOWEST_BITS
    for j in range(x.shape[0]):
        bits = float32_bits(x[j] + y[j])
        ordered = i32(bits ^ ((bits >> i32(31)) & ABS_MASK))
        largest = ordered if ordered > largest else largest
    return float32_from_bits(i32(largest ^ ((largest >> i32(31)) & ABS_MASK)))


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def exp_shifted(logits, bias, shift, out):
    """Exponentials of logits plus bias minus a shift, their maximum; the sum of all of them."""
    total = f32(0.0)
    for j in range(out.shape[0]):
        out[j] = exp32(add(add(logits[j], bias[j]), -shift))
        total += out[j]
    return total


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_into(x, y, out):
    """Write the elementwise sum of two arrays to `out`."""
    for j in range(out.shape[0]):
        out[j] = x[j] + y[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def axpy(out, factor, x):
    """Add an array times a scalar to `out`."""
    for j in range(out.shape[0]):
        out[j] += factor * x[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def copy_axpy(x, copy, out, factor):
    """Write an array to `copy`, and add it times a scalar to `out`."""
    for j in range(x.shape[0]):
        copy[j] = x[j]
        out[j] += factor * x[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def scale_clamp(value, factor):
    """Mean: a value times a scalar, clamped from below; NaN stays NaN."""
    mean = value * factor
    return MIN_MEAN if mean < MIN_MEAN else mean


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def reciprocal(x, out):
    """Write the elementwise reciprocal to `out`."""
    for j in range(out.shape[0]):
        out[j] = ONE / x[j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def negative_binomial_zeros(mu, factor, theta, inverse_theta, log_prob, grad_mu, grad_theta):
    """Log-probability of zero under negative binomials, and its derivatives.

    The means are `mu` times `factor`, clamped, and written to `mu`.
    """
    for j in range(mu.shape[0]):
        m = scale_clamp(mu[j], factor)
        mu[j] = m
        t = theta[j]
        # log(1 + x), accurate for small x too, without another division.
        x = m * inverse_theta[j]
        y = ONE + x
        inverse = ONE / (t + m)
        log_ratio = log32(y) + (x - (y - ONE)) * (t * inverse)
        log_prob[j] = -t * log_ratio
        grad_mu[j] = -t * inverse
        grad_theta[j] = m * inverse - log_ratio


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def poisson_zeros(mu, factor, log_prob, grad_mu):
    """Log-probability of zero under Poisson distributions, and its derivative.

    The means are `mu` times `factor`, clamped, and written to `mu`.
    """
    for j in range(mu.shape[0]):
        m = scale_clamp(mu[j], factor)
        mu[j] = m
        log_prob[j] = -m
        grad_mu[j] = -ONE


# Coefficients of Stirling's series and of its derivative.
S0, S1, S2, S3 = 1 / 12, 1 / 360, 1 / 1260, 1 / 1680
D0, D1, D2, D3 = 1 / 12, 1 / 120, 1 / 252, 1 / 240


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def rising_factorial(b):
    """Rising factorial of 8 factors: b (b + 1) ... (b + 7)."""
    outer = (b * (b + 7.0)) * ((b + 1.0) * (b + 6.0))
    return outer * (((b + 2.0) * (b + 5.0)) * ((b + 3.0) * (b + 4.0)))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def rising_factorial_grad(b):
    """Derivative of :func:`rising_factorial` by b."""
    p = b * (b + 7.0)
    q = (b + 1.0) * (b + 6.0)
    r = (b + 2.0) * (b + 5.0)
    s = (b + 3.0) * (b + 4.0)
    return (2.0 * b + 7.0) * ((p + q) * r * s + (r + s) * p * q)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log_factorial(count):
    """Logarithm of the factorial of a count; of gamma(count + 1) if it is no integer."""
    whole = int(count) if f32(0.0) < count < f32(2048.0) else 0
    return LOG_FACTORIAL_TABLE[whole] if whole == count else math.lgamma(f64(count) + 1.0)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def negative_binomial_counts(x, mu, theta, log_factorial, log_prob, grad_mu, grad_theta):
    """Log-probability of counts above zero under negative binomials, and its derivatives.

    The recurrence of the gamma function shifts its arguments up by 8, where four terms of
    Stirling's series are exact in double precision (DLMF 5.11.1 and 5.11.2). Large terms that
    cancel have been removed analytically.
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
        # A division takes as long as ten products: one serves several quotients.
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
        log_high_ratio = log1p64(n * inverse_t, high_t * inverse_b)
        log_mean_ratio = log1p64(m * over_t, t * over_both)
        gammas = (
            (high_b - 0.5) * log_high_ratio
            - n
            + series_b
            - series_t
            + log64(steps_t * over_steps_b)
        )
        log_prob[i] = (
            gammas + n * log64(high_t * m * over_t) - b * log_mean_ratio - log_factorial[i]
        )
        slope_t = q * (D0 - q * (D1 - q * (D2 - q * D3)))
        slope_b = w * (D0 - w * (D1 - w * (D2 - w * D3)))
        digammas = log_high_ratio - 0.5 * (inverse_b - inverse_t) - (slope_b - slope_t)
        digammas += (
            rising_factorial_grad(t) * over_steps_t - rising_factorial_grad(b) * over_steps_b
        )
        grad_mu[i] = (n - m) * over_m * (t * over_both)
        grad_theta[i] = digammas - log_mean_ratio + (m - n) * over_both


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def negative_binomial_small_counts(x, mu, theta, log_factorial, log_prob, grad_mu, grad_theta):
    """As :func:`negative_binomial_counts`, for counts of 1, 2, 3 and 4 (:func:`is_small`).

    The quotient of the gamma functions is a product of as many factors as the count.
    """
    for i in range(x.shape[0]):
        n = x[i]
        m = mu[i]
        t = theta[i]
        both = t + m
        # Factors of the product beside the first, theta, and their derivatives.
        second = t + 1.0 if n > 1.5 else 1.0
        third = t + 2.0 if n > 2.5 else 1.0
        fourth = t + 3.0 if n > 3.5 else 1.0
        slope_second = 1.0 if n > 1.5 else 0.0
        slope_third = 1.0 if n > 2.5 else 0.0
        slope_fourth = 1.0 if n > 3.5 else 0.0
        product = second * third
        slope = (slope_second * third + second * slope_third) * fourth + product * slope_fourth
        product *= fourth
        # A division takes as long as ten products: one serves several quotients.
        t_m = t * m
        t_m_both = t_m * both
        shared = 1.0 / (t_m_both * product)
        over_product = shared * t_m_both
        shared *= product
        over_both = shared * t_m
        over_t = shared * m * both
        over_m = shared * t * both
        odds = m * over_both
        power = odds * (odds if n > 1.5 else 1.0)
        power *= (odds if n > 2.5 else 1.0) * (odds if n > 3.5 else 1.0)
        log_mean_ratio = log1p64(m * over_t, t * over_both)
        log_prob[i] = log64(t * product * power) - t * log_mean_ratio - log_factorial[i]
        grad_mu[i] = (n - m) * over_m * (t * over_both)
        grad_theta[i] = over_t + slope * over_product - log_mean_ratio + (m - n) * over_both


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def is_small(count):
    """Whether a count is 1, 2, 3 or 4."""
    return (count == ONE) | (count == f32(2.0)) | (count == f32(3.0)) | (count == f32(4.0))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def poisson_counts(x, mu, log_factorial, log_prob, grad_mu):
    """Log-probability of counts above zero under Poisson distributions, and its derivative."""
    for i in range(x.shape[0]):
        m = mu[i]
        log_prob[i] = x[i] * log64(m) - m - log_factorial[i]
        grad_mu[i] = (x[i] - m) / m


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def multiply_sum(x, y):
    """Multiply the first array by the second, elementwise and in place; the sum of the result."""
    total = f32(0.0)
    for j in range(y.shape[0]):
        x[j] *= y[j]
        total += x[j]
    return total


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def softmax_backward(grad_log_mu, mu, mean, out, factor):
    """Turn derivatives by the log-means into those by the logits of the softmax, in place.

    Parameters
    ----------
    grad_log_mu
        Derivatives, of means `mu`.
    mean
        Sum of the derivatives by the log-means divided by the library size.
    out
        Array to which the results are added, times `factor`.
    """
    for j in range(mu.shape[0]):
        grad = grad_log_mu[j] - mu[j] * mean
        grad_log_mu[j] = grad
        out[j] += factor * grad
