"""Kernels of `layer_norm_activation_dropout`: the three layers in one pass over memory, and back.

Each thread works on ranges of cells. Which features are dropped comes from the counter-based
generator of `batch_norm_relu_dropout`, forward and again backward.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.batch_norm_relu_dropout_numba import WORDS, draw_words, drop_row
from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.vector_math_numba import FASTMATH_FLAGS, f32, f64, u32, u64
from cellvae.kernels.compiled.job_layouts import LAYER_NORM_ACTIVATION_DROPOUT
from cellvae.kernels.kernel_cache import compile_kernel

SUM_FLAGS = FASTMATH_FLAGS | {"reassoc"}
"""Sums over the columns of a cell are vectorized: their order depends on the processor."""


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def row_moments(row):
    """Mean and variance (of the population) of the features of a cell, in double precision."""
    total, squares = 0.0, 0.0
    for j in range(row.shape[0]):
        total += f64(row[j])
    mean = total / row.shape[0]
    for j in range(row.shape[0]):
        deviation = f64(row[j]) - mean
        squares += deviation * deviation
    return mean, squares / row.shape[0]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def activate_row(row, out, mean, inverse_std, slope):
    """Normalise the features of a cell and multiply negative ones by the slope; NaN stays NaN."""
    for j in range(row.shape[0]):
        value = (row[j] - mean) * inverse_std
        out[j] = value if value > f32(0.0) else slope * value


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def grad_activation_row(row, grad, words, mean, inverse_std, slope, threshold, scale, out):
    """Gradient of the normalised features of a cell; its sum, and that of both products."""
    total, products = 0.0, 0.0
    for j in range(row.shape[0]):
        value = (row[j] - mean) * inverse_std
        passed = scale * grad[j]
        passed = passed if value > f32(0.0) else slope * passed
        passed = f32(0.0) if words[j] < threshold else passed
        out[j] = passed
        total += f64(passed)
        products += f64(passed * value)
    return total, products


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def grad_layer_norm_row(row, mean, inverse_std, mean_grad, mean_product, out):
    """Gradient of the features of a cell from that of the normalised ones, in place."""
    for j in range(row.shape[0]):
        value = (row[j] - mean) * inverse_std
        out[j] = inverse_std * (out[j] - mean_grad - value * mean_product)


@compile_kernel
def layer_norm_activation_dropout_kernel(job):
    """Compute ranges of cells of a `LayerNormActivationDropoutJob` until none are left."""
    at = LAYER_NORM_ACTIVATION_DROPOUT
    fields = carray(job, len(at), types.int64)
    n_cells, n_columns, step = (
        fields[at.n_cells], fields[at.n_columns], fields[at.cells_per_range],
    )  # fmt: skip
    shape = (n_cells, n_columns)
    features = carray(pointer_at(fields[at.features]), shape, f32)
    out = carray(pointer_at(fields[at.output]), shape, f32)
    mean = carray(pointer_at(fields[at.mean]), n_cells, f32)
    inverse_std = carray(pointer_at(fields[at.inverse_std]), n_cells, f32)
    eps, slope, scale = carray(pointer_at(fields[at.constants]), 3, types.float64)
    seed, threshold = u64(fields[at.seed]), u32(fields[at.threshold])
    words = np.empty((WORDS, n_columns), u32)
    while True:
        first = atomic_fetch_add(job, at.next_cell, step)
        if first >= n_cells:
            break
        for c in range(first, min(first + step, n_cells)):
            row_mean, variance = row_moments(features[c])
            mean[c] = f32(row_mean)
            inverse_std[c] = f32(1.0 / math.sqrt(variance + eps))
            activate_row(features[c], out[c], mean[c], inverse_std[c], f32(slope))
            if threshold > 0:
                if c % WORDS == 0:
                    draw_words(seed, u64(c // WORDS), 0, words)
                drop_row(out[c], words[c % WORDS], threshold, f32(scale))


@compile_kernel
def layer_norm_activation_dropout_grad_kernel(job):
    """Compute the gradients of ranges of cells of a job until none are left."""
    at = LAYER_NORM_ACTIVATION_DROPOUT
    fields = carray(job, len(at), types.int64)
    n_cells, n_columns, step = (
        fields[at.n_cells], fields[at.n_columns], fields[at.cells_per_range],
    )  # fmt: skip
    shape = (n_cells, n_columns)
    features = carray(pointer_at(fields[at.features]), shape, f32)
    grad_output = carray(pointer_at(fields[at.grad_output]), shape, f32)
    grad_features = carray(pointer_at(fields[at.grad_features]), shape, f32)
    mean = carray(pointer_at(fields[at.mean]), n_cells, f32)
    inverse_std = carray(pointer_at(fields[at.inverse_std]), n_cells, f32)
    _, slope, scale = carray(pointer_at(fields[at.constants]), 3, types.float64)
    seed, threshold = u64(fields[at.seed]), u32(fields[at.threshold])
    # Without dropout they stay zero, and none is below the threshold of zero.
    words = np.zeros((WORDS, n_columns), u32)
    while True:
        first = atomic_fetch_add(job, at.next_cell, step)
        if first >= n_cells:
            break
        for c in range(first, min(first + step, n_cells)):
            if threshold > 0 and c % WORDS == 0:
                draw_words(seed, u64(c // WORDS), 0, words)
            total, products = grad_activation_row(
                features[c], grad_output[c], words[c % WORDS], mean[c], inverse_std[c],
                f32(slope), threshold, f32(scale), grad_features[c],
            )  # fmt: skip
            grad_layer_norm_row(
                features[c], mean[c], inverse_std[c],
                f32(total / n_columns), f32(products / n_columns), grad_features[c],
            )  # fmt: skip
