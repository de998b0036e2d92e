"""Search for numbers that are not finite, as work for a team of threads."""

from __future__ import annotations

from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.vector_math_numba import i32

CHUNK_SIZE = 65_536
"""Numbers that a thread takes at a time."""
ABS_MASK, INF_BITS = i32(0x7FFFFFFF), i32(0x7F800000)


@njit(error_model="numpy")
def max_abs_bits(values):
    """Largest of the bits without signs: those of infinity, or more, if one is not finite."""
    most = i32(0)
    for j in range(values.shape[0]):
        given = i32(values[j] & ABS_MASK)
        most = given if given > most else most
    return most


@cfunc(types.void(types.voidptr), cache=True)
def scan_finite(job):
    """What each thread of a team does: look at some numbers, until none are left.

    A job is a row of whole numbers: parts taken, parts with something that is not finite, tensors,
    the address of the job itself, and address and length of each tensor, of 32-bit numbers.
    """
    head = carray(job, 4, types.int64)
    n_tensors = head[2]
    known = carray(job, 4 + 2 * n_tensors, types.int64)
    part = atomic_fetch_add(known[3], 1)
    first = 0
    for i in range(n_tensors):
        length = known[5 + 2 * i]
        n_parts = (length + CHUNK_SIZE - 1) // CHUNK_SIZE
        values = carray(pointer_at(known[4 + 2 * i]), length, types.int32)
        while part < first + n_parts:
            start = (part - first) * CHUNK_SIZE
            if max_abs_bits(values[start : min(start + CHUNK_SIZE, length)]) >= INF_BITS:
                atomic_fetch_add(known[3] + 8, 1)
            part = atomic_fetch_add(known[3], 1)
        first += n_parts
