"""Results that processes exchange in rounds while they compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellvae.core.platform.process_group import ProcessGroup

PIECE_BYTES = 2**23
"""Bytes of results after which a process offers them to the others."""
PIECE_SECONDS = 1.0
"""Seconds of computing after which it does."""


class Piece(NamedTuple):
    """Results of consecutive cells of one process."""

    positions: slice
    """Positions of the cells in the pass."""
    values: dict[str, Tensor]
    """Values by name, each [cells, ...], on the CPU."""

    @property
    def layout(self) -> Layout:
        """What the others must know to receive it."""
        described = {name: (x.shape, x.dtype) for name, x in self.values.items()}
        return Layout(self.positions, described)

    def as_bytes(self) -> Iterator[Tensor]:
        """Memory of the values, [bytes] each."""
        for values in self.values.values():
            if values.numel():
                yield values.view(-1).view(torch.uint8)


class Layout(NamedTuple):
    """Positions, shapes and types of a piece."""

    positions: slice
    described: dict[str, tuple[torch.Size, torch.dtype]]

    def empty(self) -> Piece:
        """Piece of the same layout, whose values are not set."""
        made = {
            name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in self.described.items()
        }
        return Piece(self.positions, made)


def exchange_results(
    processes: ProcessGroup,
    results: Iterator[tuple[slice, Mapping[str, Tensor]]],
    store: Callable[[slice, Mapping[str, Tensor]], None],
    *,
    first_only: bool,
) -> None:
    """Give the results of all processes to all of them, or to the first.

    In each round every process computes a piece of its results, tells the others what it has or
    which error it had, and takes the pieces of the others one by one. A process holds its own
    piece, and one of another.

    Parameters
    ----------
    processes
        The processes.
    results
        Results of the batches of this one, with their positions.
    store
        Is called with each piece.
    first_only
        Whether the pieces are given to the first process only.

    Raises
    ------
    ProcessError
        If another process failed.
    """
    error: BaseException | None = None
    pieces = iter_pieces(results)
    while True:
        piece: Piece | None = None
        if error is None:
            try:
                piece = next(pieces, None)
            except BaseException as failure:
                error = failure
        layouts = processes.exchange("results", None if piece is None else piece.layout, error)
        if all(layout is None for layout in layouts):
            return
        for rank, layout in enumerate(layouts):
            if layout is None:
                continue
            received = transfer(processes, rank, layout, piece, first_only=first_only)
            if received is None or error is not None:
                continue
            try:
                store(*received)
            except BaseException as failure:
                # The others learn of it in the next round, after they have this one's pieces.
                error = failure


def transfer(
    processes: ProcessGroup,
    source: int,
    layout: Layout,
    own: Piece | None,
    *,
    first_only: bool,
) -> Piece | None:
    """Piece of one process, wherever it is wanted; None elsewhere."""
    if first_only and processes.rank not in (0, source):
        return None
    is_own = source == processes.rank
    piece = own if is_own else layout.empty()
    assert piece is not None
    for values in piece.as_bytes():
        if not first_only:
            processes.broadcast(values, source)
        elif source != 0:
            processes.send(values) if is_own else processes.receive(values, source)
    return piece if processes.rank == 0 or not first_only else None


def iter_pieces(results: Iterator[tuple[slice, Mapping[str, Tensor]]]) -> Iterator[Piece]:
    """Results of consecutive batches together, as much as is exchanged in a round."""
    parts: list[tuple[slice, dict[str, Tensor]]] = []
    n_bytes, begin = 0, time.monotonic()
    for positions, values in results:
        parts.append((positions, {name: x.cpu() for name, x in values.items()}))
        n_bytes += sum(x.nbytes for x in parts[-1][1].values())
        if n_bytes >= PIECE_BYTES or time.monotonic() - begin >= PIECE_SECONDS:
            yield join_parts(parts)
            parts, n_bytes, begin = [], 0, time.monotonic()
    if parts:
        yield join_parts(parts)


def join_parts(parts: list[tuple[slice, dict[str, Any]]]) -> Piece:
    """One piece of the results of consecutive batches."""
    values = {
        name: torch.cat([part[name] for _, part in parts]).contiguous() for name in parts[0][1]
    }
    return Piece(slice(parts[0][0].start, parts[-1][0].stop), values)
