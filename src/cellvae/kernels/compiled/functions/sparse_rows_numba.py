"""Sum of the rows of a matrix, each times a value: one row of a sparse matrix times a dense one."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from cellvae.kernels.compiled.functions.vector_math_numba import FASTMATH_FLAGS, i32

WIDE, NARROW = 64, 16
"""Columns whose sums stay in registers while all rows are added."""
FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FUSED = ("contract",)
"""Permission for LLVM to make a fused multiply-add of a product and a sum."""


def make_add_rows(n_columns: int) -> Any:
    """Compiled function that adds rows, each times a value, to a vector of so many columns.

    LLVM would write the sums to memory after every row, if this were a loop over an array. The
    arguments of the function are those of :func:`add_sparse_row`, with addresses of the first
    column in place of arrays.
    """

    @intrinsic
    def add_rows(
        typing_context: Any,
        out: Any, values: Any, indices: Any, begin: Any, end: Any, matrix: Any, stride: Any,
    ) -> Any:  # fmt: skip # pragma: no cover - runs in the compiler
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, values, indices, begin, end, matrix, stride = arguments
            vector = ir.VectorType(FLOAT, n_columns)
            mask = ir.Constant(ir.VectorType(INT32, n_columns), [0] * n_columns)
            nothing = ir.Constant(vector, ir.Undefined)
            out = builder.inttoptr(out, vector.as_pointer())
            values = builder.inttoptr(values, FLOAT.as_pointer())
            indices = builder.inttoptr(indices, INT32.as_pointer())
            matrix = builder.inttoptr(matrix, FLOAT.as_pointer())
            before = builder.block
            first_sums = builder.load(out, align=4)
            head, body, after = (
                builder.append_basic_block(name) for name in ("rows", "row", "after_rows")
            )
            builder.branch(head)

            builder.position_at_end(head)
            i, sums = builder.phi(INT64), builder.phi(vector)
            i.add_incoming(begin, before)
            sums.add_incoming(first_sums, before)
            builder.cbranch(builder.icmp_signed("<", i, end), body, after)

            builder.position_at_end(body)
            index = builder.zext(builder.load(builder.gep(indices, [i])), INT64)
            start = builder.gep(matrix, [builder.mul(index, stride)])
            row = builder.load(builder.bitcast(start, vector.as_pointer()), align=4)
            value = builder.load(builder.gep(values, [i]))
            value = builder.insert_element(nothing, value, ir.Constant(INT32, 0))
            value = builder.shuffle_vector(value, nothing, mask)
            product = builder.fmul(value, row, flags=FUSED)
            sums.add_incoming(builder.fadd(sums, product, flags=FUSED), body)
            i.add_incoming(builder.add(i, ir.Constant(INT64, 1)), body)
            builder.branch(head)

            builder.position_at_end(after)
            builder.store(sums, out, align=4)
            return context.get_dummy_value()

        return types.void(*(types.int64,) * 7), generate

    return add_rows


add_wide_rows, add_narrow_rows = make_add_rows(WIDE), make_add_rows(NARROW)


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_sparse_row(out, values, indices, begin, end, matrix):
    """Add to `out`, [columns], the rows of a matrix that a sparse row selects, each times a value.

    Parameters
    ----------
    out
        Sums, updated in place, [columns].
    values, indices
        Values, and the row of the matrix that each is a factor of; `indices` are int32.
    begin, end
        Range of them that is read.
    matrix
        Matrix, [rows, columns], whose rows are contiguous.
    """
    n_columns, stride = matrix.shape[1], matrix.strides[0] // 4
    column = 0
    out_address, matrix_address = out.ctypes.data, matrix.ctypes.data
    values_address, indices_address = values.ctypes.data, indices.ctypes.data
    while column + WIDE <= n_columns:
        add_wide_rows(
            out_address + 4 * column, values_address, indices_address, begin, end,
            matrix_address + 4 * column, stride,
        )  # fmt: skip
        column += WIDE
    while column + NARROW <= n_columns:
        add_narrow_rows(
            out_address + 4 * column, values_address, indices_address, begin, end,
            matrix_address + 4 * column, stride,
        )  # fmt: skip
        column += NARROW
    if column < n_columns:
        for i in range(begin, end):
            row = matrix[indices[i]]
            for j in range(column, n_columns):
                out[j] += values[i] * row[j]


@njit(error_model="numpy")
def count_up(n):
    """Numbers from 0 to before `n`, int32: the indices of all rows of a matrix."""
    numbers = np.empty(n, i32)
    for i in range(n):
        numbers[i] = i
    return numbers


@njit(error_model="numpy")
def copy_values(values, out):
    """Copy a vector; numba compiles the assignment of a slice for seconds."""
    for i in range(values.shape[0]):
        out[i] = values[i]
