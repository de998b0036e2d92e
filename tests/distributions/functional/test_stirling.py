"""Stirling's series against high precision."""

from __future__ import annotations

import mpmath
import pytest
import torch

from cellvae.distributions.functional.stirling import (
    HALF_LOG_TWO_PI,
    digamma_minus_log,
    falling_product,
    polynomial,
    stirling_for,
    stirling_sum,
)

TOLERANCE = {torch.float32: 2e-7, torch.float64: 5e-16}
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@each_dtype
def test_series_is_exact_from_the_shift_on(dtype: torch.dtype) -> None:
    stirling = stirling_for(dtype)
    z = stirling.shift * torch.logspace(0, 9, 60, dtype=torch.float64).to(dtype)
    computed = stirling_sum(z.reciprocal(), stirling)
    with mpmath.workdps(40):
        exact = [
            mpmath.loggamma(y) - (y - 0.5) * mpmath.log(y) + y - mpmath.log(2 * mpmath.pi) / 2
            for y in map(mpmath.mpf, z.tolist())
        ]
    expected = torch.tensor([float(value) for value in exact], dtype=torch.float64)
    torch.testing.assert_close(computed.double(), expected, rtol=0, atol=TOLERANCE[dtype])


@each_dtype
def test_recurrence_and_series_give_the_log_gamma_function(dtype: torch.dtype) -> None:
    stirling = stirling_for(dtype)
    x = torch.tensor([0.0, 0.3, 1.0, 2.5, 9.0, 40.0], dtype=dtype)
    high = x + stirling.shift
    inverse = high.reciprocal()
    log_factorial = (high - 0.5) * high.log() - high + HALF_LOG_TWO_PI
    log_factorial += stirling_sum(inverse, stirling)
    log_factorial -= falling_product(inverse, stirling).log() + (stirling.shift - 1) * high.log()
    expected = torch.lgamma(x.double() + 1).to(dtype)
    torch.testing.assert_close(log_factorial, expected, rtol=1e-6, atol=200 * TOLERANCE[dtype])


@each_dtype
def test_digamma_keeps_its_digits_for_small_and_large_arguments(dtype: torch.dtype) -> None:
    stirling = stirling_for(dtype)
    z = torch.logspace(-15, 12, 100, dtype=torch.float64).to(dtype)
    computed = digamma_minus_log(z, stirling)
    with mpmath.workdps(40):
        exact = [
            mpmath.digamma(y) - mpmath.log(y + stirling.shift) for y in map(mpmath.mpf, z.tolist())
        ]
    expected = torch.tensor([float(value) for value in exact], dtype=torch.float64)
    bound = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(computed.double(), expected, rtol=bound, atol=0)


def test_slopes_are_the_derivative_of_the_terms_in_double_precision() -> None:
    stirling = stirling_for(torch.float64)
    expected = [(2 * n + 1) * term for n, term in enumerate(stirling.terms)]
    assert stirling.slopes == pytest.approx(expected, rel=1e-15)


def test_polynomial_starts_with_the_linear_term() -> None:
    x = torch.tensor([0.0, 2.0, -1.0])
    assert polynomial(x, (3.0, 5.0, 7.0)).tolist() == [0.0, 6 + 20 + 56, -3 + 5 - 7]
