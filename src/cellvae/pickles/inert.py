"""What stands in for the objects of a pickle: values that do nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import FileFormatError

PLAIN_KINDS = "biufSU"
"""Kinds of numpy types whose values are bytes alone."""


class Frozen(type):
    """Class of classes that a pickle cannot give other attributes."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise FileFormatError("The file changes what its values are read with.")


@final
class Maker:
    """Function that a pickle may call, and can do nothing else with."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        """What the function makes of values of the file."""
        return self.make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise FileFormatError("The file changes what its values are read with.")


class Inert(metaclass=Frozen):
    """Object of a class that is not made: what it was called with is dropped."""

    def __init__(self, *arguments: Any, **words: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **words: Any) -> Inert:
        """Give another one."""
        return Inert()


class Kind(metaclass=Frozen):
    """Type of the values of an array, as a pickle describes it."""

    def __init__(self, name: Any, *flags: Any) -> None:
        self.name = str(name)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = str(state[1])

    @property
    def is_object(self) -> bool:
        """Whether values are objects, which the pickle holds one by one."""
        return self.name in ("O", "O8", "object")

    def dtype(self) -> np.dtype[Any]:
        """Type of numpy.

        Raises
        ------
        FileFormatError
            If it is not one of plain numbers, truths or texts.
        """
        try:
            found = np.dtype(f"{self.order if self.order in '<>' else '<'}{self.name}")
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"Cannot read values of type {self.name!r:.50}.") from error
        if found.kind not in PLAIN_KINDS or found.itemsize == 0:
            raise FileFormatError(f"Expected plain values in an array; got {self.name!r:.50}.")
        return found


class Array(metaclass=Frozen):
    """Array of a pickle, made when all of it has been read."""

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
        if not whole or not isinstance(kind, Kind):
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
