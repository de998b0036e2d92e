"""What a job that threads share is read and divided by, in compiled code."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def pointer_at(typing_context: Any, address: Any) -> Any:  # pragma: no cover - runs in the compiler
    """Pointer to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def atomic_fetch_add(
    typing_context: Any, address: Any, n: Any
) -> Any:  # pragma: no cover - likewise
    """Number at an address, to which `n` is added at the same moment for all threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(types.int64)
        place = builder.inttoptr(arguments[0], kind.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), generate
