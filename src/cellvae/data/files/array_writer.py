"""Rows written into an array of a file, a whole chunk at a time."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class ArrayWriter:
    """Writer of the rows of an array in a file; rows wait in memory until a chunk is complete.

    A part of a compressed chunk can be written only by decompressing what is there, so many small
    parts would cost far more than whole chunks.

    Parameters
    ----------
    array
        Array of h5py or zarr, [rows, ...].
    chunk_rows
        Rows that the file stores as one piece.
    """

    def __init__(self, array: Any, chunk_rows: int) -> None:
        self.array = array
        self.chunk_rows = chunk_rows
        self.waiting = np.empty((chunk_rows, *array.shape[1:]), dtype=array.dtype)
        self.first = self.n_waiting = 0

    def write(self, first: int, values: NDArray[Any]) -> None:
        """Write consecutive rows, the first of them at this position."""
        if first != self.first + self.n_waiting:
            self.flush()
        while len(values):
            if not self.n_waiting:
                self.first = first
            room = self.chunk_rows - (self.first + self.n_waiting) % self.chunk_rows
            part, values = values[:room], values[room:]
            self.waiting[self.n_waiting : self.n_waiting + len(part)] = part
            self.n_waiting += len(part)
            first += len(part)
            if len(part) == room:
                self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if self.n_waiting:
            rows = slice(self.first, self.first + self.n_waiting)
            self.array[rows] = self.waiting[: self.n_waiting]
        self.first, self.n_waiting = self.first + self.n_waiting, 0
