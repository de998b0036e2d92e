"""Kernels of `sample_posterior`: mean, standard deviation, sample and divergence, and gradients.

Each cell is computed by one thread, forward, and so is each row of the gradients, backward: results
do not depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.sparse_rows_numba import add_sparse_row, count_up
from cellvae.kernels.compiled.functions.vector_math_numba import (
    FASTMATH_FLAGS,
    dot,
    exp32,
    f32,
    log32,
)
from cellvae.kernels.compiled.job_layouts import SAMPLE_POSTERIOR
from cellvae.kernels.kernel_cache import compile_kernel

CELLS_PER_ITEM = 8
"""Cells that a thread computes at a time."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def sample_cell(c, features, layers, noise, results, var_eps, max_log_variance):
    """Compute one cell from its hidden features.

    Parameters
    ----------
    c
        Number of the cell.
    features
        Hidden features of the cell, [hidden].
    layers
        Weight and bias of the mean, and of the log-variance.
    noise
        Standard normal numbers, [cells, latent].
    results
        Mean, standard deviation, sample, [cells, latent], slopes for the gradients,
        [2, cells, latent], and divergence, [cells]; written.
    var_eps, max_log_variance
        Added to the variance, and the largest log-variance.
    """
    mean_weight, mean_bias, variance_weight, variance_bias = layers
    loc, scale, sample, slopes, kl = results
    total = f32(0.0)
    for j in range(mean_bias.shape[0]):
        mean = mean_bias[j] + dot(features, mean_weight[j])
        log_variance = variance_bias[j] + dot(features, variance_weight[j])
        is_clamped = log_variance >= max_log_variance
        variance = exp32(max_log_variance if is_clamped else log_variance)
        deviation = f32(math.sqrt(variance + var_eps))
        inverse = f32(1.0) / deviation
        slope = f32(0.0) if is_clamped else f32(0.5) * variance * inverse
        loc[c, j] = mean
        scale[c, j] = deviation
        sample[c, j] = mean + deviation * noise[c, j]
        slopes[0, c, j] = slope
        slopes[1, c, j] = slope * (deviation - inverse)
        total += f32(0.5) * (mean * mean + deviation * deviation - f32(1.0)) - log32(deviation)
    kl[c] = total


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def head_gradients(loc, slopes, noise, grads, by_mean, by_variance):
    """Write the derivatives by mean and log-variance of all cells to `by_mean` and `by_variance`.

    Parameters
    ----------
    loc, noise
        Mean and noise, [cells, latent].
    slopes
        Derivatives of standard deviation and divergence by the log-variance, [2, cells, latent].
    grads
        Derivatives by mean, standard deviation, sample, [cells, latent], and divergence,
        [cells, 1]; without cells if there are none.
    by_mean, by_variance
        Results, [cells, latent].
    """
    grad_loc, grad_scale, grad_sample, grad_kl = grads
    n_cells, n_latent = by_mean.shape
    by_mean[:] = f32(0.0)
    by_variance[:] = f32(0.0)
    for c in range(grad_loc.shape[0]):
        for j in range(n_latent):
            by_mean[c, j] += grad_loc[c, j]
    for c in range(grad_scale.shape[0]):
        for j in range(n_latent):
            by_variance[c, j] += grad_scale[c, j] * slopes[0, c, j]
    for c in range(grad_sample.shape[0]):
        for j in range(n_latent):
            by_mean[c, j] += grad_sample[c, j]
            by_variance[c, j] += grad_sample[c, j] * noise[c, j] * slopes[0, c, j]
    for c in range(grad_kl.shape[0]):
        for j in range(n_latent):
            by_mean[c, j] += grad_kl[c, 0] * loc[c, j]
            by_variance[c, j] += grad_kl[c, 0] * slopes[1, c, j]


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def layer_gradient(column, hidden, values, order, grad_weight):
    """Gradient of one row of a weight, written to `grad_weight`, and of its bias.

    Parameters
    ----------
    column
        Derivatives by one output of the layer, [cells].
    hidden
        Input of the layer, [cells, hidden].
    values
        Memory for these derivatives, without gaps, [cells].
    order
        Numbers of the cells.
    grad_weight
        Gradient of the row, [hidden].
    """
    total = f32(0.0)
    for c in range(column.shape[0]):
        values[c] = column[c]
        total += column[c]
    grad_weight[:] = f32(0.0)
    add_sparse_row(grad_weight, values, order, 0, column.shape[0], hidden)
    return total


@njit(error_model="numpy")
def optional_array(address, shape):
    """Array of float32 at an address; without rows if the address is 0."""
    n_rows = shape[0] if address != 0 else 0
    return carray(pointer_at(address), (n_rows, shape[1]), f32)


@njit(error_model="numpy")
def read_layers(fields):
    """Hidden features, weights and biases of both layers, and the two constants."""
    at = SAMPLE_POSTERIOR
    n_cells, n_hidden, n_latent = fields[at.n_cells], fields[at.n_hidden], fields[at.n_latent]
    hidden = carray(pointer_at(fields[at.hidden]), (n_cells, n_hidden), f32)
    shape = (n_latent, n_hidden)
    layers = (
        carray(pointer_at(fields[at.mean_weight]), shape, f32),
        carray(pointer_at(fields[at.mean_bias]), n_latent, f32),
        carray(pointer_at(fields[at.variance_weight]), shape, f32),
        carray(pointer_at(fields[at.variance_bias]), n_latent, f32),
    )
    constants = carray(pointer_at(fields[at.constants]), 2, types.float64)
    return hidden, layers, f32(constants[0]), f32(constants[1])


@compile_kernel
def sample_posterior_kernel(job):
    """Compute a few cells of a `SamplePosteriorJob` at a time until none are left."""
    at = SAMPLE_POSTERIOR
    fields = carray(job, len(at), types.int64)
    n_cells, shape = fields[at.n_cells], (fields[at.n_cells], fields[at.n_latent])
    hidden, layers, var_eps, max_log_variance = read_layers(fields)
    noise = carray(pointer_at(fields[at.noise]), shape, f32)
    results = (
        carray(pointer_at(fields[at.loc]), shape, f32),
        carray(pointer_at(fields[at.scale]), shape, f32),
        carray(pointer_at(fields[at.sample]), shape, f32),
        carray(pointer_at(fields[at.slopes]), (2, *shape), f32),
        carray(pointer_at(fields[at.kl]), n_cells, f32),
    )
    while True:
        start = atomic_fetch_add(job, at.next_item, CELLS_PER_ITEM)
        if start >= n_cells:
            break
        for c in range(start, min(start + CELLS_PER_ITEM, n_cells)):
            sample_cell(c, hidden[c], layers, noise, results, var_eps, max_log_variance)


@compile_kernel
def sample_posterior_grad_kernel(job):
    """Compute gradients of a `SamplePosteriorJob` until none are left: cells, then weights."""
    at = SAMPLE_POSTERIOR
    fields = carray(job, len(at), types.int64)
    n_cells, n_hidden, n_latent = fields[at.n_cells], fields[at.n_hidden], fields[at.n_latent]
    shape, shape_of_weight = (n_cells, n_latent), (n_latent, n_hidden)
    hidden, layers, _, _ = read_layers(fields)
    loc = carray(pointer_at(fields[at.loc]), shape, f32)
    slopes = carray(pointer_at(fields[at.slopes]), (2, n_cells, n_latent), f32)
    noise = carray(pointer_at(fields[at.noise]), shape, f32)
    grads = (
        optional_array(fields[at.grad_loc], shape),
        optional_array(fields[at.grad_scale], shape),
        optional_array(fields[at.grad_sample], shape),
        optional_array(fields[at.grad_kl], (n_cells, 1)),
    )
    grad_hidden = carray(pointer_at(fields[at.grad_hidden]), (n_cells, n_hidden), f32)
    grad_mean_weight = carray(pointer_at(fields[at.grad_mean_weight]), shape_of_weight, f32)
    grad_mean_bias = carray(pointer_at(fields[at.grad_mean_bias]), n_latent, f32)
    grad_variance_weight = carray(pointer_at(fields[at.grad_variance_weight]), shape_of_weight, f32)
    grad_variance_bias = carray(pointer_at(fields[at.grad_variance_bias]), n_latent, f32)
    # Every thread computes these few derivatives itself: to wait for another one takes longer.
    by_mean, by_variance = np.empty(shape, f32), np.empty(shape, f32)
    head_gradients(loc, slopes, noise, grads, by_mean, by_variance)
    values, order = np.empty(n_cells, f32), count_up(max(n_cells, n_latent))
    n_items = (n_cells + CELLS_PER_ITEM - 1) // CELLS_PER_ITEM
    while True:
        item = atomic_fetch_add(job, at.next_item, 1)
        if item >= n_items + n_latent:
            break
        if item < n_items:
            start = item * CELLS_PER_ITEM
            for c in range(start, min(start + CELLS_PER_ITEM, n_cells)):
                grad_hidden[c][:] = f32(0.0)
                add_sparse_row(grad_hidden[c], by_mean[c], order, 0, n_latent, layers[0])
                add_sparse_row(grad_hidden[c], by_variance[c], order, 0, n_latent, layers[2])
            continue
        j = item - n_items
        grad_mean_bias[j] = layer_gradient(
            by_mean[:, j], hidden, values, order, grad_mean_weight[j]
        )
        grad_variance_bias[j] = layer_gradient(
            by_variance[:, j], hidden, values, order, grad_variance_weight[j]
        )
