"""Safe reader of pickled pandas tables: no code of the pickle is executed."""

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
"""Maximum size of a pickle in bytes."""
MAX_DEPTH = 50
"""Maximum depth of nested values."""


class PandasObject(metaclass=ImmutableType):
    """Stub of a pandas object: the arguments and the state that the pickle has for it."""

    def __new__(cls, *arguments: Any) -> PandasObject:
        """Create a stub with the arguments of the object."""
        stub = super().__new__(cls)
        stub.arguments = arguments
        stub.state = None
        return stub

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class FrameStub(PandasObject):
    """Stub of a DataFrame."""


class SeriesStub(PandasObject):
    """Stub of a Series."""


class BlocksStub(PandasObject):
    """Stub of the block manager, with the arrays of a table."""


class IndexStub(PandasObject):
    """Stub of an Index."""


class RangeStub(PandasObject):
    """Stub of a RangeIndex."""


def new_index(stub_class: Any, state: Any) -> PandasObject:
    """Stub of an index from its class and its state."""
    if stub_class not in (IndexStub, RangeStub) or not isinstance(state, dict):
        raise FileFormatError("Expected a class and a state for the names of a table.")
    stub: PandasObject = stub_class()
    stub.__setstate__(state)
    return stub


def new_block(values: Any, positions: Any, n_dimensions: Any = 2, *further: Any) -> dict[str, Any]:
    """Block of columns, in the form of older versions of pandas."""
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
"""Names that a pickle may use, and the stubs or functions that replace them."""


@final
class TableUnpickler(pickle.Unpickler):
    """Unpickler that creates Python values and stubs of tables, and refuses everything else."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Stub or function that replaces a name of the pickle.

        Raises
        ------
        UnsafeFileError
            If it is not in `TABLE_NAMES`: nothing of it is imported or called.
        """
        if (module, name) not in TABLE_NAMES:
            raise UnsafeFileError(
                f"'{self.path}' asks for '{module}.{name}', which no table of numbers and strings "
                "needs. Nothing was run. Delete the file, unless you know who wrote it."
            )
        return TABLE_NAMES[module, name]


def read_pickled_tables(path: Path) -> dict[str, Any]:
    """Tables, arrays and lists in a pickled dictionary, by name.

    Raises
    ------
    UnsafeFileError
        If the pickle uses any other class or function.
    InvalidDataError
        If it is corrupt, or not a dictionary.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"it is larger than {MAX_BYTES:,} bytes")
        stubs = TableUnpickler(path.read_bytes(), path).load()
        tables = TableBuilder().build(stubs)
        if not isinstance(tables, dict) or not all(isinstance(name, str) for name in tables):
            raise FileFormatError("it holds no dictionary of tables")
    except (UnsafeFileError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise InvalidDataError(
            f"Expected a pickle of tables in '{path}'; it cannot be read: {error}"
        ) from error
    return tables


@final
class TableBuilder:
    """Builder of tables and arrays from their stubs; each stub is built once."""

    def __init__(self) -> None:
        self.built: dict[int, Any] = {}

    def build(self, value: Any, depth: int = 0) -> Any:
        """Value with stubs replaced by tables and arrays.

        Raises
        ------
        FileFormatError
            If values are nested too deeply, or a stub is incomplete.
        """
        if depth > MAX_DEPTH:
            raise FileFormatError("values are nested too deeply")
        if not isinstance(value, list | tuple | dict | ArrayStub | PandasObject | Stub | DtypeStub):
            return value
        if id(value) not in self.built:
            self.built[id(value)] = self.build_new(value, depth + 1)
        return self.built[id(value)]

    def build_new(self, value: Any, depth: int) -> Any:
        """Value that has not been built yet."""
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
        """Numpy array."""
        array = stub.values()
        if array.dtype != object:
            return array
        items = [self.build(item, depth) for item in array.ravel().tolist()]
        filled = np.empty(len(items), dtype=object)
        filled[:] = items
        return filled.reshape(array.shape)

    def index(self, stub: PandasObject, depth: int) -> pd.Index:
        """Pandas Index."""
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
        """Pandas Series."""
        state, (rows,), (block,) = unpack_state(stub)
        name = self.build(state.get("_name"), depth)
        values = np.ravel(self.build(block["values"], depth))
        return pd.Series(values, index=self.index(rows, depth), name=name)

    def frame(self, stub: FrameStub, depth: int) -> pd.DataFrame:
        """Pandas DataFrame, from the blocks of its columns."""
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
    """State of a table or column, its indices and its blocks, from any version of pandas."""
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
