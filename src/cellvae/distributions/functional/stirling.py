"""Stirling's series of the log-gamma function, and the recurrence that shifts its argument."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class StirlingSeries(NamedTuple):
    r"""Approximation of the log-gamma function for z >= `shift`, to the precision of a dtype.

    .. math:: \log\Gamma(z) = (z - 1/2) \log z - z + \log(2\pi) / 2 + \sum_n c_n z^{1 - 2n}
    """

    shift: int
    """Number of steps of the recurrence after which the series is accurate for any argument."""
    terms: tuple[float, ...]
    """Coefficients of the sum."""
    slopes: tuple[float, ...]
    """Coefficients of minus the derivative of the sum, a polynomial in 1 / z^2."""


# B_2n / 2n (2n - 1) and B_2n / 2n: DLMF 5.11.1 and 5.11.2. The error is below 1e-16 from 10 on.
DOUBLE = StirlingSeries(
    10,
    (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400),
    (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160),
)
# Three coefficients with the smallest maximum error from 2 on: 4e-8 and 7e-8.
SINGLE = StirlingSeries(
    2,
    (0.083332745, -0.0027574901, 0.00060960551),
    (0.083327411, -0.0081761453, 0.0026924967),
)


def stirling_for(dtype: torch.dtype) -> StirlingSeries:
    """Shortest approximation that is accurate to the precision of a dtype."""
    return DOUBLE if dtype == torch.float64 else SINGLE


def polynomial(x: Float[Tensor, "*x"], coefficients: tuple[float, ...]) -> Float[Tensor, "*x"]:
    """Polynomial without a constant term, lowest power first; without gradient."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total.add_(coefficient).mul_(x)
    return total


def stirling_sum(inverse: Float[Tensor, "*z"], stirling: StirlingSeries) -> Float[Tensor, "*z"]:
    """Sum of Stirling's series at z, from 1 / z; without gradient."""
    square = inverse * inverse
    total = square * stirling.terms[-1]
    for term in stirling.terms[-2:0:-1]:
        total.add_(term).mul_(square)
    return total.add_(stirling.terms[0]).mul_(inverse)


def falling_product(inverse: Float[Tensor, "*z"], stirling: StirlingSeries) -> Float[Tensor, "*z"]:
    """Product of 1 - n / z for n from 1 to shift - 1, from 1 / z; without gradient."""
    product = 1 - inverse
    for step in range(2, stirling.shift):
        product.mul_(1 - step * inverse)
    return product


def digamma_minus_log(z: Float[Tensor, "*z"], stirling: StirlingSeries) -> Float[Tensor, "*z"]:
    r"""Digamma function of z less :math:`\log(z + \text{shift})`, for z > 0; without gradient.

    It uses sums, products and quotients only, so that equal arguments give equal bits.
    """
    inverse = (z + stirling.shift).reciprocal_()
    total = polynomial(inverse * inverse, stirling.slopes).add_(inverse, alpha=0.5)
    for step in range(stirling.shift):
        total.add_((z + step).reciprocal_())
    return total.neg_()
