"""Kernel of `all_finite`: a search for NaN and infinity."""

from __future__ import annotations

from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.vector_math_numba import ABS_MASK, INF_BITS, i32
from cellvae.kernels.compiled.job_layouts import ALL_FINITE
from cellvae.kernels.kernel_cache import compile_kernel

CHUNK_SIZE = 65_536
"""Elements that a thread checks at a time."""


@njit(error_model="numpy")
def max_abs_bits(bits):
    """Largest bit pattern without its sign; `INF_BITS` or more if an element is not finite."""
    largest = i32(0)
    for j in range(bits.shape[0]):
        magnitude = i32(bits[j] & ABS_MASK)
        largest = magnitude if magnitude > largest else largest
    return largest


@compile_kernel
def all_finite_kernel(job):
    """Check chunks of the tensors of an `AllFiniteJob` until none are left."""
    fields = carray(job, len(ALL_FINITE), types.int64)
    n_tensors = fields[ALL_FINITE.n_tensors]
    tensors = carray(pointer_at(fields[ALL_FINITE.tensors]), (n_tensors, 2), types.int64)
    chunk = atomic_fetch_add(job, ALL_FINITE.next_chunk, 1)
    first = 0
    for i in range(n_tensors):
        length = tensors[i, 1]
        n_chunks = (length + CHUNK_SIZE - 1) // CHUNK_SIZE
        bits = carray(pointer_at(tensors[i, 0]), length, types.int32)
        while chunk < first + n_chunks:
            start = (chunk - first) * CHUNK_SIZE
            if max_abs_bits(bits[start : min(start + CHUNK_SIZE, length)]) >= INF_BITS:
                atomic_fetch_add(job, ALL_FINITE.n_not_finite, 1)
            chunk = atomic_fetch_add(job, ALL_FINITE.next_chunk, 1)
        first += n_chunks
