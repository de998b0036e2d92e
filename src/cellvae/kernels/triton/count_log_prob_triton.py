"""Kernel of `count_log_prob` on a CUDA device: log-probability of counts and its derivatives.

The formulas are those of `cellvae.distributions.functional.log_prob`, in single precision: the
log-probabilities in the saddle-point form of Loader (2000), log-gamma and digamma functions by
Stirling's series (Abramowitz & Stegun 6.1.40 and 6.3.18, with fitted coefficients) after two steps
of their recurrence. A module of its own, since Triton is imported where it is used.
"""

from __future__ import annotations

import triton
from triton import language as tl

SMALLEST_MEAN = tl.constexpr(1e-20)
LARGEST_DISPERSION = tl.constexpr(1e15)
SHIFT = tl.constexpr(2.0)
"""Steps of the recurrence of the gamma function after which the series are accurate."""
HALF_LOG_TWO_PI = tl.constexpr(0.9189385332046727)
MIN_LOG1P = tl.constexpr(1.1920928955078125e-07 - 1.0)
"""Smallest argument of a logarithm of 1 + x."""
# Coefficients of the series, as `SINGLE` in `cellvae.distributions.functional.stirling`.
S0, S1, S2 = tl.constexpr(0.083332745), tl.constexpr(-0.0027574901), tl.constexpr(0.00060960551)
D0, D1, D2 = tl.constexpr(0.083327411), tl.constexpr(-0.0081761453), tl.constexpr(0.0026924967)
LOWEST = tl.constexpr(-3.0e38)


@triton.jit
def log1p(x):
    """Logarithm of 1 + x, accurate for small x too (Kahan)."""
    y = 1.0 + x
    excess = y - 1.0
    return tl.where(excess == 0.0, x, tl.log(y) * (x / tl.where(excess == 0.0, 1.0, excess)))


@triton.jit
def stirling_sum(inverse):
    """Sum of Stirling's series of the log-gamma function at z, from 1 / z."""
    square = inverse * inverse
    return ((square * S2 + S1) * square + S0) * inverse


@triton.jit
def digamma_minus_log(z):
    """Digamma function of z less log(z + SHIFT), for z > 0."""
    inverse = 1.0 / (z + SHIFT)
    square = inverse * inverse
    series = ((square * D2 + D1) * square + D0) * square
    return -(series + 0.5 * inverse + 1.0 / z + 1.0 / (z + 1.0))


@triton.jit
def softplus(x):
    """Logarithm of 1 + exp(x)."""
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def sigmoid(x):
    """Logistic function."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, small) / (1.0 + small)


@triton.jit
def poisson(x, mu):
    """Log-probability of counts under Poisson distributions, and its derivative by log(mu)."""
    inverse = 1.0 / (x + SHIFT)
    small = tl.log((1.0 - inverse) * tl.sqrt(inverse)) - stirling_sum(inverse)
    small += SHIFT - HALF_LOG_TWO_PI
    error = x - mu
    ratio = (error + SHIFT) / mu
    ratio = tl.where(ratio < MIN_LOG1P, MIN_LOG1P, ratio)
    log_prob = error - x * log1p(ratio) + tl.where(x > 0.0, small, 0.0)
    return log_prob, error


@triton.jit
def negative_binomial(x, mu, theta):
    """Log-probability of counts under negative binomials; derivatives by log(mu) and theta."""
    total = x + theta
    high = total + SHIFT
    inverse_x = 1.0 / (x + SHIFT)
    inverse_t = 1.0 / (theta + SHIFT)
    inverse_b = 1.0 / high
    steps = tl.sqrt(high * inverse_x) * (1.0 - inverse_x) / ((1.0 - inverse_b) * total)
    steps *= (1.0 - inverse_t) * tl.sqrt(inverse_t) * theta
    small = tl.log(steps) + stirling_sum(inverse_b) - stirling_sum(inverse_x)
    small -= stirling_sum(inverse_t) + (HALF_LOG_TWO_PI - SHIFT)
    error = x - mu
    ratio = (error + SHIFT) * theta * inverse_b / mu
    ratio = tl.where(ratio < MIN_LOG1P, MIN_LOG1P, ratio)
    excess = error * theta - SHIFT * mu
    both = mu + theta
    denominator = tl.minimum(both * (theta + SHIFT), high * theta)
    log_theta_ratio = log1p(tl.abs(excess) / denominator)
    log_theta_ratio = tl.where(excess < 0.0, -log_theta_ratio, log_theta_ratio)
    is_zero = x == 0.0
    log_prob = tl.where(is_zero, 0.0, small - x * log1p(ratio)) + log_theta_ratio * theta
    digammas = tl.where(is_zero, 0.0, digamma_minus_log(total) - digamma_minus_log(theta))
    grad_log_mu = error * (theta / both)
    grad_theta = digammas + log_theta_ratio - error / both
    return log_prob, grad_log_mu, grad_theta


@triton.jit
def zero_inflation(is_zero, log_prob, dropout):
    """Log-probability with zero inflation; its derivatives by the one without, and by dropout."""
    excess = dropout - log_prob
    structural = tl.where(is_zero, sigmoid(excess), 0.0)
    of_zero = tl.maximum(log_prob, dropout) + log1p(tl.exp(-tl.abs(excess)))
    inflated = tl.where(is_zero, of_zero, log_prob) - softplus(dropout)
    return inflated, 1.0 - structural, structural - sigmoid(dropout)


@triton.jit
def count_log_prob_kernel(
    counts,
    heads,
    logits_bias,
    dropout_bias,
    log_library,
    theta,
    log_prob,
    grad_log_library,
    gradients,
    n_genes,
    counts_stride,
    heads_stride,
    theta_stride,
    gradients_stride,
    HAS_LOGITS_BIAS: tl.constexpr,
    HAS_DROPOUT_BIAS: tl.constexpr,
    DISPERSED: tl.constexpr,
    INFLATED: tl.constexpr,
    NEED_GRAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Log-probability of the counts of one cell, and its derivatives.

    Arguments are those of `launch`, and numbers of elements from a cell to the next; that of
    `theta` is 0 for one inverse dispersion for all cells. The logits are read three times: for the
    softmax, for the log-probability, and for the derivative of the softmax.
    """
    cell = tl.program_id(0).to(tl.int64)
    counts += cell * counts_stride
    logits = heads + cell * heads_stride
    dropout = logits + n_genes
    theta += cell * theta_stride
    gradients += cell * gradients_stride
    lane = tl.arange(0, BLOCK)

    largest = tl.full((BLOCK,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n_genes, BLOCK):
        gene = first + lane
        inside = gene < n_genes
        value = tl.load(logits + gene, mask=inside, other=float("-inf"))
        if HAS_LOGITS_BIAS:
            value += tl.load(logits_bias + gene, mask=inside, other=0.0)
        larger = tl.maximum(largest, value)
        total = total * tl.exp(largest - larger) + tl.exp(value - larger)
        largest = larger
    shift = tl.max(largest, axis=0)
    total_of_cell = tl.sum(total * tl.exp(largest - shift), axis=0)
    factor = tl.exp(tl.load(log_library + cell)) / total_of_cell

    sum_log_prob = tl.zeros((BLOCK,), tl.float32)
    sum_grad = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n_genes, BLOCK):
        gene = first + lane
        inside = gene < n_genes
        value = tl.load(logits + gene, mask=inside, other=float("-inf"))
        if HAS_LOGITS_BIAS:
            value += tl.load(logits_bias + gene, mask=inside, other=0.0)
        mu = tl.exp(value - shift) * factor
        mu = tl.where(mu < SMALLEST_MEAN, SMALLEST_MEAN, mu)
        x = tl.load(counts + gene, mask=inside, other=0.0)
        if DISPERSED:
            t = tl.load(theta + gene, mask=inside, other=1.0)
            t = tl.where(t < SMALLEST_MEAN, SMALLEST_MEAN, t)
            t = tl.where(t > LARGEST_DISPERSION, LARGEST_DISPERSION, t)
            value_log_prob, grad, grad_theta = negative_binomial(x, mu, t)
        else:
            value_log_prob, grad = poisson(x, mu)
            grad_theta = grad
        if INFLATED:
            p = tl.load(dropout + gene, mask=inside, other=0.0)
            if HAS_DROPOUT_BIAS:
                p += tl.load(dropout_bias + gene, mask=inside, other=0.0)
            value_log_prob, sampled, grad_dropout = zero_inflation(x == 0.0, value_log_prob, p)
            grad *= sampled
            grad_theta *= sampled
        sum_log_prob += tl.where(inside, value_log_prob, 0.0)
        if NEED_GRAD:
            sum_grad += tl.where(inside, grad, 0.0)
            tl.store(gradients + gene, grad, mask=inside)
            if INFLATED:
                tl.store(gradients + n_genes + gene, grad_dropout, mask=inside)
            if DISPERSED:
                after = gradients + n_genes * (1 + INFLATED)
                tl.store(after + gene, grad_theta, mask=inside)
    tl.store(log_prob + cell, tl.sum(sum_log_prob, axis=0))
    if NEED_GRAD:
        grad_of_cell = tl.sum(sum_grad, axis=0)
        tl.store(grad_log_library + cell, grad_of_cell)
        part = grad_of_cell / total_of_cell
        # Threads may read here what others have written above.
        tl.debug_barrier()
        for first in range(0, n_genes, BLOCK):
            gene = first + lane
            inside = gene < n_genes
            value = tl.load(logits + gene, mask=inside, other=float("-inf"))
            if HAS_LOGITS_BIAS:
                value += tl.load(logits_bias + gene, mask=inside, other=0.0)
            grad = tl.load(gradients + gene, mask=inside, other=0.0)
            tl.store(gradients + gene, grad - tl.exp(value - shift) * part, mask=inside)
