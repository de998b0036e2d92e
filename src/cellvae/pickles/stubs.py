"""Stubs in place of the objects of a pickle: values that do nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import FileFormatError

PLAIN_DTYPES = "biufSU"
"""Kinds of NumPy dtypes whose values are plain bytes."""
UNITS = ("s", "ms", "us", "ns")
"""Units of dates and durations in pandas."""


class ImmutableType(type):
    """Metaclass whose classes a pickle cannot modify."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise FileFormatError("The file changes what its values are read with.")


@final
class AllowedCall:
    """Function that a pickle may call, and cannot modify."""

    __slots__ = ("function",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.function = make

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with values of the file."""
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise FileFormatError("The file changes what its values are read with.")


class Stub(metaclass=ImmutableType):
    """Stub of an object of any class; its arguments are dropped."""

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **words: Any) -> Stub:
        """Return another stub."""
        return Stub()


class DtypeStub(metaclass=ImmutableType):
    """Stub of a NumPy dtype."""

    def __init__(self, name: Any, *flags: Any) -> None:
        self.name = str(name)
        self.order = "<"
        self.unit = ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = str(state[1])
        if self.name in ("M8", "m8") and isinstance(state, tuple) and len(state) == 9:
            self.unit = unit_of(state[8])

    @property
    def is_object(self) -> bool:
        """Whether values are objects, which are pickled one by one."""
        return self.name in ("O", "O8", "object")

    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype.

        Raises
        ------
        FileFormatError
            If it is not one of plain numbers, booleans, strings, dates or durations.
        """
        try:
            order = self.order if self.order in "<>" else "<"
            found = np.dtype(f"{order}{self.name}{self.unit}")
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"Cannot read values of type {self.name!r:.50}.") from error
        of_time = found.kind in "mM" and bool(self.unit)
        if (found.kind not in PLAIN_DTYPES and not of_time) or found.itemsize == 0:
            raise FileFormatError(f"Expected plain values in an array; got {self.name!r:.50}.")
        return found


def unit_of(metadata: Any) -> str:
    """Unit of times, such as "[ns]"; empty if pandas does not have it."""
    match metadata:
        case (_, (bytes() as name, 1, 1, 1)):
            unit = name.decode("latin1")
        case (_, (str() as unit, 1, 1, 1)):
            pass
        case _:
            return ""
    return f"[{unit}]" if unit in UNITS else ""


class ArrayStub(metaclass=ImmutableType):
    """Stub of an array, created once all of it has been read."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else None

    def values(self) -> NDArray[Any]:
        """The array.

        Raises
        ------
        FileFormatError
            If the numbers do not fit its shape.
        """
        if self.state is None or len(self.state) != 5:
            raise FileFormatError("Expected an array with shape, type and values.")
        _, shape, kind, by_column, content = self.state
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not whole or not isinstance(kind, DtypeStub):
            raise FileFormatError("Expected an array with a shape of whole numbers and a type.")
        if kind.is_object:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise FileFormatError("Expected as many objects as the shape of an array says.")
            found = np.empty(len(content), dtype=object)
            found[:] = content
        else:
            dtype = kind.dtype()
            if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.itemsize:
                raise FileFormatError("Expected as many bytes as the shape of an array says.")
            found = np.frombuffer(content, dtype=dtype)
        return found.reshape(shape, order="F" if by_column else "C")
