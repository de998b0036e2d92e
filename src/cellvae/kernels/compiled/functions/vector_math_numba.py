"""Exponentials and logarithms that LLVM can vectorize: without branches or calls of a library.

The result is NaN if the argument is NaN or infinite, so that a network whose outputs are no longer
finite is noticed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

FASTMATH_FLAGS = {"contract", "nsz"}
"""Permissions for LLVM: fused multiply-add, and ignoring the sign of zero."""
SUM_FLAGS = {*FASTMATH_FLAGS, "reassoc"}
"""Permission to add numbers in any order beside; for functions that do nothing but sum."""

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64
u32, u64 = np.uint32, np.uint64

# The logarithm of 2 in two parts; the first has few digits, so that its products with small
# integers are exact.
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(math.log(2) - 0.693359375)
LOG2_E = f32(1 / math.log(2))
LOWEST, HIGHEST = f32(-87.0), f32(88.0)

# (exp(r) - 1 - r) / r^2 for |r| < log(2) / 2, fitted at Chebyshev points: error 4e-9.
EXP = tuple(
    f32(c)
    for c in (
        0.5000000014294659,
        0.16666573339419538,
        0.041666456742946396,
        0.00836377951282077,
        0.0013934548326210217,
    )
)
# (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f between the roots of 1/2 and 2, fitted likewise.
LOG = tuple(
    f32(c)
    for c in (
        0.3333332859496789,
        -0.25000296609241496,
        0.20001469015784712,
        -0.1664224411032307,
        0.1420215727147111,
        -0.1297226939686599,
        0.12712465266348374,
        -0.0810166011197343,
    )
)
E0, E1, E2, E3, E4 = EXP
L0, L1, L2, L3, L4, L5, L6, L7 = LOG
O3, O5, O7, O9, O11, O13, O15, O17, O19 = (1 / n for n in range(3, 20, 2))
ONE, HALF = f32(1.0), f32(0.5)
ROOT_32, MANTISSA_32 = i32(0x3F3504F3), i32(0x7FFFFF)
SHIFT_32 = i32(0x3F800000 - 0x3F3504F3)
ROOT_64, MANTISSA_64 = i64(0x3FE6A09E667F3BCD), i64(0xFFFFFFFFFFFFF)
SHIFT_64 = i64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
ABS_MASK, INF_BITS = i32(0x7FFFFFFF), i32(0x7F800000)
"""All bits of a float32 but its sign, and the bits of infinity."""


def make_bitcast(source: Any, target: Any) -> Any:
    """Compiled function that reinterprets the bits of a number as another type."""

    @intrinsic
    def cast(typing_context: Any, x: Any) -> Any:  # pragma: no cover - runs in the compiler
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return cast


float32_bits = make_bitcast(types.float32, types.int32)
float32_from_bits = make_bitcast(types.int32, types.float32)
float64_bits = make_bitcast(types.float64, types.int64)
float64_from_bits = make_bitcast(types.int64, types.float64)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def exp32(x):
    """Exponential in single precision; 1e-38 below -87, 2e38 above 88."""
    y = LOWEST if x < LOWEST else x
    y = HIGHEST if y > HIGHEST else y
    n = i32(i32(y * LOG2_E + f32(256.5)) - i32(256))
    k = f32(n)
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    square = r * r
    p = (E4 * square + (E3 * r + E2)) * square + (E1 * r + E0)
    p = (p * square + r) + (ONE + (x - x))
    return p * float32_from_bits(i32((n + i32(127)) << i32(23)))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log32(y):
    """Natural logarithm in single precision of a positive normal number."""
    i = i32(float32_bits(y) + SHIFT_32)
    e = f32((i >> i32(23)) - i32(127))
    f = float32_from_bits(i32((i & MANTISSA_32) + ROOT_32)) - ONE
    square = f * f
    high = (L7 * f + L6) * square + (L5 * f + L4)
    q = high * (square * square) + ((L3 * f + L2) * square + (L1 * f + L0))
    return e * LN2_HIGH + (f + (square * f * q - HALF * square + e * LN2_LOW)) + (y - y)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log1p32(x):
    """Natural logarithm of 1 + x in single precision, accurate for small x too; NaN below -1."""
    y = ONE + x
    logarithm = log32(y) + (x - (y - ONE)) / y
    return logarithm if y > f32(0.0) else f32(np.nan)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log64(y):
    """Natural logarithm in double precision of a positive normal number.

    The logarithm of the mantissa m is 2 artanh((m - 1) / (m + 1)), computed as a power series.
    """
    i = float64_bits(y) + SHIFT_64
    e = f64(i32((i >> i64(52)) - i64(1023)))
    m = float64_from_bits((i & MANTISSA_64) + ROOT_64)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    square = q * q
    high = (O19 * q + O17) * square + (O15 * q + O13)
    middle = (O11 * q + O9) * square + (O7 * q + O5)
    p = (high * (square * square) + middle) * square + (O3 * q + 1.0)
    return e * 0.6931471805599453 + 2.0 * s * p + (y - y)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def log1p64(x, inverse):
    """Natural logarithm of 1 + x in double precision, accurate for small positive x too.

    `inverse` is 1 / (1 + x).
    """
    y = 1.0 + x
    return log64(y) + (x - (y - 1.0)) * inverse


@njit(error_model="numpy", fastmath=True)
def sum_unordered(x):
    """Sum in the order that is fastest on this processor."""
    total = f32(0.0)
    for j in range(x.shape[0]):
        total += x[j]
    return total


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def dot(first, second):
    """Dot product of two vectors."""
    total = f32(0.0)
    for i in range(first.shape[0]):
        total += first[i] * second[i]
    return total
