"""Kernel that writes the series of the kernel of `count_log_prob`, for a test."""

import triton
from triton import language as tl

from cellvae.kernels.triton import count_log_prob_triton

SHIFT = count_log_prob_triton.SHIFT
digamma_minus_log = count_log_prob_triton.digamma_minus_log
stirling_sum = count_log_prob_triton.stirling_sum


@triton.jit
def series_kernel(z, digamma, lgamma, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Both series at each z."""
    lane = tl.arange(0, BLOCK)
    x = tl.load(z + lane)
    tl.store(digamma + lane, digamma_minus_log(x))
    tl.store(lgamma + lane, stirling_sum(1.0 / (x + SHIFT)))
