"""Pointers from addresses, and an atomic counter, for use in compiled code."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def pointer_at(typing_context: Any, address: Any) -> Any:  # pragma: no cover - runs in the compiler
    """Pointer to an address, given as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def atomic_fetch_add(
    typing_context: Any, job: Any, position: Any, n: Any
) -> Any:  # pragma: no cover - runs in the compiler
    """Add `n` to the field of a job at a position; the value before, as one atomic operation."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, index, amount = arguments
        integers = builder.bitcast(pointer, context.get_value_type(types.int64).as_pointer())
        return builder.atomic_rmw("add", builder.gep(integers, [index]), amount, "monotonic")

    return types.int64(types.voidptr, types.int64, types.int64), generate
