"""Kernels of `batch_norm_relu_dropout`: the three layers in one pass over memory, and back.

A linear layer with few inputs before them is computed range by range too.

Each thread works on ranges of columns, so that sums over cells do not depend on the number of
threads. Which features are dropped comes from a counter-based generator: it depends on the seed,
the cell and the column alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.sparse_rows_numba import (
    add_sparse_row,
    copy_values,
    count_up,
)
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    f32,
    f64,
    u32,
    u64,
)
from cellvae.kernels.compiled.job_layouts import (
    BATCH_NORM_RELU_DROPOUT,
    COLUMNS_OF_A_CACHE_LINE,
)
from cellvae.kernels.kernel_cache import compile_kernel

N_ROUNDS = 7
"""Rounds of Philox 4x32; with 7 it passes all tests of BigCrush (Salmon et al. 2011, table 2)."""
MULTIPLIER_0, MULTIPLIER_1 = u64(0xD2511F53), u64(0xCD9E8D57)
KEY_STEP_0, KEY_STEP_1 = u64(0x9E3779B9), u64(0xBB67AE85)
LOW_BITS, SHIFT = u64(0xFFFFFFFF), u64(32)
WORDS = 4
"""Random words of 32 bits that a counter gives: one for each of four cells."""


@njit(error_model="numpy", inline="always")
def philox(counter_0, counter_1, key_0, key_1):
    """Four random words of 32 bits from a counter and a key (Salmon et al. 2011, SC11)."""
    c0, c1, c2, c3 = counter_0, counter_1, u64(0), u64(0)
    for _ in range(N_ROUNDS):
        product_0 = MULTIPLIER_0 * c0
        product_1 = MULTIPLIER_1 * c2
        c0 = (product_1 >> SHIFT) ^ c1 ^ key_0
        c1 = product_1 & LOW_BITS
        c2 = (product_0 >> SHIFT) ^ c3 ^ key_1
        c3 = product_0 & LOW_BITS
        key_0 = (key_0 + KEY_STEP_0) & LOW_BITS
        key_1 = (key_1 + KEY_STEP_1) & LOW_BITS
    return c0, c1, c2, c3


@njit(error_model="numpy")
def draw_words(seed, group, first, words):
    """Random words for four cells and the columns from `first` on, [4, columns]."""
    key_0, key_1 = seed & LOW_BITS, seed >> SHIFT
    for j in range(words.shape[1]):
        a, b, c, d = philox(u64(first + j), group, key_0, key_1)
        words[0, j] = u32(a)
        words[1, j] = u32(b)
        words[2, j] = u32(c)
        words[3, j] = u32(d)


@njit(error_model="numpy")
def weight_by_input(weight):
    """Transposed copy of a weight, [inputs, columns]."""
    by_input = np.empty((weight.shape[1], weight.shape[0]), f32)
    for j in range(weight.shape[0]):
        for k in range(weight.shape[1]):
            by_input[k, j] = weight[j, k]
    return by_input


@njit(error_model="numpy")
def linear_range(inputs, weight, bias, out):
    """Output of a linear layer for a range of columns: rows of its weight, and its bias."""
    n_cells, n_inputs = inputs.shape
    by_input, order = weight_by_input(weight), count_up(n_inputs)
    for c in range(n_cells):
        row = out[c]
        copy_values(bias, row)
        add_sparse_row(row, inputs[c], order, 0, n_inputs, by_input)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def linear_grad_range(grads, inputs, weight, grad_inputs, grad_weight, grad_bias):
    """Gradients of a linear layer for a range of columns.

    Parameters
    ----------
    grads
        Derivatives by the output, [cells, columns of the range].
    inputs, weight
        Inputs, [cells, inputs], and weight, [columns of the range, inputs].
    grad_inputs
        Sums over the columns of each cache line, [cache lines of the range, cells, inputs],
        written; without cache lines if they are not needed.
    grad_weight, grad_bias
        Gradients of the range, written.
    """
    n_cells, n_inputs = inputs.shape
    width = weight.shape[0]
    sums, values, cells = np.zeros(width, f32), np.empty(n_cells, f32), count_up(n_cells)
    for k in range(n_inputs):
        for c in range(n_cells):
            values[c] = inputs[c, k]
        sums[:] = f32(0.0)
        add_sparse_row(sums, values, cells, 0, n_cells, grads)
        for j in range(width):
            grad_weight[j, k] = sums[j]
    values[:] = f32(1.0)
    grad_bias[:] = f32(0.0)
    add_sparse_row(grad_bias, values, cells, 0, n_cells, grads)
    # Rows as long as a multiple of a vector register.
    n_padded = -(-n_inputs // COLUMNS_OF_A_CACHE_LINE) * COLUMNS_OF_A_CACHE_LINE
    padded, row = np.zeros((width, n_padded), f32), np.empty(n_padded, f32)
    for j in range(width):
        copy_values(weight[j], padded[j])
    columns = count_up(width)
    for line in range(grad_inputs.shape[0]):
        first = line * COLUMNS_OF_A_CACHE_LINE
        end = min(first + COLUMNS_OF_A_CACHE_LINE, width)
        for c in range(n_cells):
            row[:] = f32(0.0)
            add_sparse_row(row, grads[c], columns, first, end, padded)
            copy_values(row[:n_inputs], grad_inputs[line, c])


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_row(row, sums):
    """Add the features of a cell to the sums of the columns."""
    for j in range(row.shape[0]):
        sums[j] += f64(row[j])


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_squared_deviations(row, mean, sums):
    """Add the squared deviations of the features of a cell from the mean."""
    for j in range(row.shape[0]):
        deviation = f64(row[j]) - mean[j]
        sums[j] += deviation * deviation


@njit(error_model="numpy")
def column_moments(first, end, features, mean, variance):
    """Mean and variance (of the population) of a range of columns, in double precision."""
    n_cells = features.shape[0]
    mean[:] = 0.0
    variance[:] = 0.0
    for c in range(n_cells):
        add_row(features[c][first:end], mean)
    for j in range(end - first):
        mean[j] /= n_cells
    for c in range(n_cells):
        add_squared_deviations(features[c][first:end], mean, variance)
    for j in range(end - first):
        variance[j] /= n_cells


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def normalize_row(row, out, mean, factor, bias):
    """Normalise the features of a cell and set negative ones to zero; NaN stays NaN."""
    for j in range(row.shape[0]):
        value = (row[j] - mean[j]) * factor[j] + bias[j]
        out[j] = f32(0.0) if value < f32(0.0) else value


@njit(error_model="numpy")
def drop_row(out, words, threshold, scale):
    """Set the features of a cell whose word is below the threshold to zero, scale the others."""
    for j in range(out.shape[0]):
        out[j] = f32(0.0) if words[j] < threshold else out[j] * scale


@njit(error_model="numpy")
def forward_range(
    first, end, features, mean, inverse_std, weight, bias, out, seed, threshold, scale
):
    """Output of a range of columns, from the moments of all columns."""
    factor = np.empty(end - first, f32)
    for j in range(first, end):
        factor[j - first] = weight[j] * inverse_std[j]
    mean, bias = mean[first:end], bias[first:end]
    words = np.empty((WORDS, end - first), u32)
    for c in range(features.shape[0]):
        row = out[c][first:end]
        normalize_row(features[c][first:end], row, mean, factor, bias)
        if threshold > 0:
            if c % WORDS == 0:
                draw_words(seed, u64(c // WORDS), first, words)
            drop_row(row, words[c % WORDS], threshold, scale)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_gradients(row, active, grad, mean, inverse_std, scale, grad_weight, grad_bias):
    """Add what a cell contributes to the gradients of weight and bias, in double precision."""
    for j in range(row.shape[0]):
        passed = f32(0.0) if active[j] <= f32(0.0) else grad[j] * scale
        grad_bias[j] += f64(passed)
        grad_weight[j] += f64(passed * ((row[j] - mean[j]) * inverse_std[j]))


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def grad_row(row, active, grad, mean, inverse_std, factor, scale, mean_grad, mean_product, result):
    """Gradient of the features of a cell."""
    for j in range(row.shape[0]):
        passed = f32(0.0) if active[j] <= f32(0.0) else grad[j] * scale
        normalized = (row[j] - mean[j]) * inverse_std[j]
        result[j] = factor[j] * (passed - mean_grad[j] - normalized * mean_product[j])


@compile_kernel
def batch_norm_relu_dropout_kernel(job):
    """Compute ranges of columns of a `BatchNormReluDropoutJob` until none are left."""
    at = BATCH_NORM_RELU_DROPOUT
    fields = carray(job, len(at), types.int64)
    n_cells, n_columns, n_inputs, step = (
        fields[at.n_cells], fields[at.n_columns], fields[at.n_inputs],
        fields[at.columns_per_range],
    )  # fmt: skip
    shape = (n_cells, n_columns)
    inputs = carray(pointer_at(fields[at.inputs]), (n_cells, n_inputs), f32)
    linear_weight = carray(pointer_at(fields[at.linear_weight]), (n_columns, n_inputs), f32)
    linear_bias = carray(pointer_at(fields[at.linear_bias]), n_columns, f32)
    features = carray(pointer_at(fields[at.features]), shape, f32)
    out = carray(pointer_at(fields[at.output]), shape, f32)
    weight = carray(pointer_at(fields[at.weight]), n_columns, f32)
    bias = carray(pointer_at(fields[at.bias]), n_columns, f32)
    mean = carray(pointer_at(fields[at.mean]), n_columns, f32)
    inverse_std = carray(pointer_at(fields[at.inverse_std]), n_columns, f32)
    running_mean = carray(pointer_at(fields[at.running_mean]), n_columns, f32)
    running_var = carray(pointer_at(fields[at.running_var]), n_columns, f32)
    eps, momentum, scale = carray(pointer_at(fields[at.constants]), 3, types.float64)
    seed, threshold = u64(fields[at.seed]), u32(fields[at.threshold])
    means, variances = np.empty(step, f64), np.empty(step, f64)
    while True:
        first = atomic_fetch_add(job, at.next_column, step)
        if first >= n_columns:
            break
        end = min(first + step, n_columns)
        if n_inputs > 0:
            linear_range(
                inputs, linear_weight[first:end], linear_bias[first:end], features[:, first:end]
            )
        column_moments(first, end, features, means[: end - first], variances[: end - first])
        for j in range(first, end):
            m, v = means[j - first], variances[j - first]
            mean[j] = f32(m)
            inverse_std[j] = f32(1.0 / math.sqrt(v + eps))
            unbiased = v * n_cells / (n_cells - 1)
            running_mean[j] = f32((1.0 - momentum) * running_mean[j] + momentum * m)
            running_var[j] = f32((1.0 - momentum) * running_var[j] + momentum * unbiased)
        forward_range(
            first, end, features, mean, inverse_std, weight, bias, out, seed, threshold, f32(scale)
        )


@compile_kernel
def batch_norm_relu_dropout_grad_kernel(job):
    """Compute the gradients of ranges of columns of a job until none are left."""
    at = BATCH_NORM_RELU_DROPOUT
    fields = carray(job, len(at), types.int64)
    n_cells, n_columns, n_inputs, step = (
        fields[at.n_cells], fields[at.n_columns], fields[at.n_inputs],
        fields[at.columns_per_range],
    )  # fmt: skip
    shape = (n_cells, n_columns)
    inputs = carray(pointer_at(fields[at.inputs]), (n_cells, n_inputs), f32)
    linear_weight = carray(pointer_at(fields[at.linear_weight]), (n_columns, n_inputs), f32)
    features = carray(pointer_at(fields[at.features]), shape, f32)
    out = carray(pointer_at(fields[at.output]), shape, f32)
    grad_output = carray(pointer_at(fields[at.grad_output]), shape, f32)
    grad_features = carray(pointer_at(fields[at.grad_features]), shape, f32)
    weight = carray(pointer_at(fields[at.weight]), n_columns, f32)
    n_lines = (n_columns + COLUMNS_OF_A_CACHE_LINE - 1) // COLUMNS_OF_A_CACHE_LINE
    grad_inputs = carray(
        pointer_at(fields[at.grad_inputs]),
        (n_lines if fields[at.grad_inputs] != 0 else 0, n_cells, n_inputs),
        f32,
    )
    grad_linear_weight = carray(
        pointer_at(fields[at.grad_linear_weight]), (n_columns, n_inputs), f32
    )
    grad_linear_bias = carray(pointer_at(fields[at.grad_linear_bias]), n_columns, f32)
    mean = carray(pointer_at(fields[at.mean]), n_columns, f32)
    inverse_std = carray(pointer_at(fields[at.inverse_std]), n_columns, f32)
    grad_weight = carray(pointer_at(fields[at.grad_weight]), n_columns, f32)
    grad_bias = carray(pointer_at(fields[at.grad_bias]), n_columns, f32)
    scale = f32(carray(pointer_at(fields[at.constants]), 3, types.float64)[2])
    products, sums = np.empty(step, f64), np.empty(step, f64)
    mean_product, mean_grad, factor = np.empty(step, f32), np.empty(step, f32), np.empty(step, f32)
    while True:
        first = atomic_fetch_add(job, at.next_column, step)
        if first >= n_columns:
            break
        end = min(first + step, n_columns)
        width = end - first
        products[:] = 0.0
        sums[:] = 0.0
        for c in range(n_cells):
            add_gradients(
                features[c][first:end], out[c][first:end], grad_output[c][first:end],
                mean[first:end], inverse_std[first:end], scale, products, sums,
            )  # fmt: skip
        for j in range(width):
            grad_weight[first + j] = f32(products[j])
            grad_bias[first + j] = f32(sums[j])
            mean_product[j] = f32(products[j] / n_cells)
            mean_grad[j] = f32(sums[j] / n_cells)
            factor[j] = weight[first + j] * inverse_std[first + j]
        for c in range(n_cells):
            grad_row(
                features[c][first:end], out[c][first:end], grad_output[c][first:end],
                mean[first:end], inverse_std[first:end], factor, scale,
                mean_grad, mean_product, grad_features[c][first:end],
            )  # fmt: skip
        if n_inputs > 0:
            first_line = first // COLUMNS_OF_A_CACHE_LINE
            end_line = (end + COLUMNS_OF_A_CACHE_LINE - 1) // COLUMNS_OF_A_CACHE_LINE
            linear_grad_range(
                grad_features[:, first:end], inputs, linear_weight[first:end],
                grad_inputs[first_line:end_line],
                grad_linear_weight[first:end], grad_linear_bias[first:end],
            )  # fmt: skip
