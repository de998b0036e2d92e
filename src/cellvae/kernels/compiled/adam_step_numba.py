"""Kernel of `adam_step`: an update of all weights by Adam or AdamW."""

from __future__ import annotations

import math

from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.vector_math_numba import FASTMATH_FLAGS, ONE, f32
from cellvae.kernels.compiled.job_layouts import ADAM_CONSTANTS, ADAM_STEP, ADAM_TENSOR
from cellvae.kernels.kernel_cache import compile_kernel

WEIGHTS_PER_CHUNK = 32_768
"""Weights that a thread updates at a time."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def update_weights(
    weights, gradients, exp_avg, exp_avg_sq,
    keep, decay, new, beta2, new_sq, step_size, inverse_root, eps,
):  # fmt: skip
    """Update weights and the moments of their gradients.

    Parameters
    ----------
    weights, gradients, exp_avg, exp_avg_sq
        Weights, their gradients, and the mean and mean square of the gradients.
    keep
        What remains of a weight after decoupled weight decay, a factor.
    decay
        Weight decay that is a part of the gradient.
    new, new_sq
        Weights of this gradient in the two means.
    beta2
        Weight of the former mean square.
    step_size
        Learning rate with the bias correction of the mean.
    inverse_root
        Bias correction of the root of the mean square.
    eps
        Added to that root.
    """
    for j in range(weights.shape[0]):
        weight = weights[j] * keep
        gradient = gradients[j] + decay * weight
        mean = exp_avg[j] + new * (gradient - exp_avg[j])
        square = beta2 * exp_avg_sq[j] + new_sq * gradient * gradient
        exp_avg[j] = mean
        exp_avg_sq[j] = square
        weights[j] = weight - step_size * mean / (math.sqrt(square) * inverse_root + eps)


@compile_kernel
def adam_step_kernel(job):
    """Update chunks of the tensors of an `AdamStepJob` until none are left."""
    at, of, number = ADAM_STEP, ADAM_TENSOR, ADAM_CONSTANTS
    fields = carray(job, len(at), types.int64)
    n_tensors = fields[at.n_tensors]
    tensors = carray(pointer_at(fields[at.tensors]), (n_tensors, len(of)), types.int64)
    constants = carray(pointer_at(fields[at.constants]), len(number), types.float64)
    lr, beta1, beta2 = constants[number.lr], constants[number.beta1], constants[number.beta2]
    decay = constants[number.weight_decay]
    coupled, keep = f32(decay), ONE
    if fields[at.is_decoupled] != 0:
        coupled, keep = f32(0.0), f32(1.0 - lr * decay)
    chunk = atomic_fetch_add(job, at.next_chunk, 1)
    n_mine = 0
    first = 0
    for i in range(n_tensors):
        length = tensors[i, of.n_elements]
        n_chunks = (length + WEIGHTS_PER_CHUNK - 1) // WEIGHTS_PER_CHUNK
        if chunk < first + n_chunks:
            weights = carray(pointer_at(tensors[i, of.parameter]), length, f32)
            gradients = carray(pointer_at(tensors[i, of.gradient]), length, f32)
            exp_avg = carray(pointer_at(tensors[i, of.exp_avg]), length, f32)
            exp_avg_sq = carray(pointer_at(tensors[i, of.exp_avg_sq]), length, f32)
            step = carray(pointer_at(tensors[i, of.step]), 1, f32)[0] + 1.0
            step_size = f32(lr / (1.0 - beta1**step))
            inverse_root = f32(1.0 / math.sqrt(1.0 - beta2**step))
            while chunk < first + n_chunks:
                start = (chunk - first) * WEIGHTS_PER_CHUNK
                end = min(start + WEIGHTS_PER_CHUNK, length)
                update_weights(
                    weights[start:end], gradients[start:end],
                    exp_avg[start:end], exp_avg_sq[start:end],
                    keep, coupled, f32(1.0 - beta1), f32(beta2), f32(1.0 - beta2),
                    step_size, inverse_root, f32(constants[number.eps]),
                )  # fmt: skip
                n_mine += 1
                chunk = atomic_fetch_add(job, at.next_chunk, 1)
        first += n_chunks
    # The thread that is the last to finish counts the step: no other reads the counts any more.
    if n_mine > 0 and atomic_fetch_add(job, at.n_done, n_mine) + n_mine == first:
        for i in range(n_tensors):
            carray(pointer_at(tensors[i, of.step]), 1, f32)[0] += ONE
