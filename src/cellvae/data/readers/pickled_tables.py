"""Tables of a pickle that pandas wrote, read without running anything in it."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
import pandas as pd

from cellvae.errors import FileFormatError, InvalidDataError, UnsafeFileError
from cellvae.pickles.allowed_calls import ALLOWED_NAMES
from cellvae.pickles.stubs import AllowedCall, ArrayStub, DtypeStub, ImmutableType, Stub

MAX_BYTES = 2**28
"""Bytes of a pickle that are read at most."""
MAX_DEPTH = 50
"""How deeply values may be nested."""


class PandasObject(metaclass=ImmutableType):
    """Object of pandas as a pickle describes it: what it was made with, and its state."""

    def __new__(cls, *arguments: Any) -> PandasObject:
        """Object with what it is made with."""
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class FrameStub(PandasObject):
    """Table."""


class SeriesStub(PandasObject):
    """Column."""


class BlocksStub(PandasObject):
    """Arrays that the columns of a table are stored in."""


class IndexStub(PandasObject):
    """Names of rows or columns."""


class RangeStub(PandasObject):
    """Numbers of rows or columns, at equal distances."""


def new_index(kind: Any, state: Any) -> PandasObject:
    """Index with the state that the pickle gives along with its class."""
    if kind not in (IndexStub, RangeStub) or not isinstance(state, dict):
        raise FileFormatError("Expected a class and a state for the names of a table.")
    made: PandasObject = kind()
    made.__setstate__(state)
    return made


def new_block(values: Any, positions: Any, n_dimensions: Any = 2, *further: Any) -> dict[str, Any]:
    """Array of some columns, in the form that older versions of pandas write."""
    return {"values": values, "mgr_locs": positions}


INDICES = ("Index", "Int64Index", "UInt64Index", "Float64Index")
TABLE_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        **ALLOWED_NAMES,
        ("pandas.core.frame", "DataFrame"): FrameStub,
        ("pandas.core.series", "Series"): SeriesStub,
        ("pandas.core.internals", "BlockManager"): BlocksStub,
        ("pandas.core.internals", "SingleBlockManager"): BlocksStub,
        ("pandas.core.internals.managers", "BlockManager"): BlocksStub,
        ("pandas.core.internals.managers", "SingleBlockManager"): BlocksStub,
        ("pandas._libs.internals", "_unpickle_block"): AllowedCall(new_block),
        ("pandas.core.indexes.base", "_new_Index"): AllowedCall(new_index),
        ("pandas.core.indexes.range", "RangeIndex"): RangeStub,
        **{("pandas.core.indexes.base", name): IndexStub for name in INDICES},
        **{("pandas.core.indexes.numeric", name): IndexStub for name in INDICES},
    }
)
"""Everything that the pickle can make, and what makes it here."""


@final
class TableUnpickler(pickle.Unpickler):
    """Unpickler that makes plain values and descriptions of tables, and refuses all else."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle.

        Raises
        ------
        UnsafeFileError
            If it is not on the list: nothing of it is imported or called.
        """
        if (module, name) not in TABLE_NAMES:
            raise UnsafeFileError(
                f"'{self.path}' asks for '{module}.{name}', which no table of numbers and texts "
                "needs. Nothing was run. Delete the file, unless you know who wrote it."
            )
        return TABLE_NAMES[module, name]


def read_pickled_tables(path: Path) -> dict[str, Any]:
    """Tables, arrays and lists of a pickled dictionary, by name.

    Raises
    ------
    UnsafeFileError
        If the pickle asks for anything else.
    InvalidDataError
        If it is damaged, or holds no dictionary.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"it is larger than {MAX_BYTES:,} bytes")
        described = TableUnpickler(path.read_bytes(), path).load()
        found = TableBuilder().build(described)
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise FileFormatError("it holds no dictionary of tables")
    except (UnsafeFileError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise InvalidDataError(
            f"Expected a pickle of tables in '{path}'; it cannot be read: {error}"
        ) from error
    return found


@final
class TableBuilder:
    """Maker of tables and arrays from their descriptions, each once however often it is named."""

    def __init__(self) -> None:
        self.known: dict[int, Any] = {}

    def build(self, value: Any, depth: int = 0) -> Any:
        """Value with tables and arrays in place of their descriptions.

        Raises
        ------
        FileFormatError
            If values are nested too deeply, or a description is not complete.
        """
        if depth > MAX_DEPTH:
            raise FileFormatError("values are nested too deeply")
        if not isinstance(value, list | tuple | dict | ArrayStub | PandasObject | Stub | DtypeStub):
            return value
        if id(value) not in self.known:
            self.known[id(value)] = self.build_new(value, depth + 1)
        return self.known[id(value)]

    def build_new(self, value: Any, depth: int) -> Any:
        """Value that has not been made yet."""
        if isinstance(value, ArrayStub):
            return self.array(value, depth)
        if isinstance(value, FrameStub):
            return self.frame(value, depth)
        if isinstance(value, SeriesStub):
            return self.series(value, depth)
        if isinstance(value, IndexStub | RangeStub):
            return self.index(value, depth)
        if isinstance(value, dict):
            return {self.build(key, depth): self.build(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.build(item, depth) for item in value]
        raise FileFormatError("it holds a part of a table outside of one")

    def array(self, stub: ArrayStub, depth: int) -> np.ndarray:
        """Array of numpy."""
        array = stub.values()
        if array.dtype != object:
            return array
        items = [self.build(item, depth) for item in array.ravel().tolist()]
        filled = np.empty(len(items), dtype=object)
        filled[:] = items
        return filled.reshape(array.shape)

    def index(self, stub: PandasObject, depth: int) -> pd.Index:
        """Index of pandas."""
        state = stub.state
        if not isinstance(state, dict):
            raise FileFormatError("names of a table are missing")
        name = self.build(state.get("name"), depth)
        if isinstance(stub, RangeStub):
            bounds = [state.get(part) for part in ("start", "stop", "step")]
            if not all(type(bound) is int for bound in bounds):
                raise FileFormatError("numbers of rows are missing")
            return pd.RangeIndex(*bounds, name=name)
        return pd.Index(self.build(state.get("data"), depth), name=name)

    def series(self, stub: SeriesStub, depth: int) -> pd.Series:
        """Column of pandas."""
        state, (rows,), (block,) = unpack_state(stub)
        name = self.build(state.get("_name"), depth)
        values = np.ravel(self.build(block["values"], depth))
        return pd.Series(values, index=self.index(rows, depth), name=name)

    def frame(self, stub: FrameStub, depth: int) -> pd.DataFrame:
        """Table of pandas, from the arrays that hold its columns side by side."""
        _, (names, rows), blocks = unpack_state(stub)
        columns = self.index(names, depth)
        found: dict[int, np.ndarray] = {}
        for block in blocks:
            positions = block["mgr_locs"]
            if isinstance(positions, slice):
                positions = range(*positions.indices(len(columns)))
            else:
                positions = self.build(positions, depth)
            values = self.build(block["values"], depth)
            found |= {int(n): column for n, column in zip(positions, values, strict=True)}
        if sorted(found) != list(range(len(columns))):
            raise FileFormatError("a table lacks columns")
        frame = pd.DataFrame({n: found[n] for n in sorted(found)}, index=self.index(rows, depth))
        frame.columns = columns
        return frame


def unpack_state(stub: PandasObject) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """State of a table or column, its names and its arrays, in the form of any age of pandas."""
    state = stub.state if isinstance(stub.state, dict) else {}
    blocks = state.get("_mgr", state.get("_data"))
    arguments, old = (), None
    if isinstance(blocks, BlocksStub):
        arguments, old = blocks.arguments, blocks.state
    if isinstance(old, tuple) and len(old) == 4 and "0.14.1" in old[3]:
        indices, arrays = old[3]["0.14.1"]["axes"], old[3]["0.14.1"]["blocks"]
    elif len(arguments) >= 2:
        arrays, indices = arguments[:2]
    else:
        raise FileFormatError("a table is written in a form that is not known")
    whole = all(isinstance(index, IndexStub | RangeStub) for index in indices) and all(
        isinstance(array, dict) and {"values", "mgr_locs"} <= set(array) for array in arrays
    )
    if not whole:
        raise FileFormatError("a table is written in a form that is not known")
    return state, [*indices], [*arrays]
