"""Order of an epoch of cells in files: runs of consecutive cells at random, mixed in a buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from cellvae.core.seeds import make_generator

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


@final
@dataclass(frozen=True, kw_only=True)
class RunOrder:
    """How cells in files are shuffled: by runs, then within a buffer of many runs.

    Parameters
    ----------
    run_length
        Consecutive training cells of a run, which are read together.
    buffer_size
        Cells that are in memory at a time and shuffled there.
    """

    run_length: int
    buffer_size: int

    def is_whole(self, n_cells: int) -> bool:
        """Whether all cells fit into one buffer; they are then shuffled as in memory."""
        return n_cells <= self.buffer_size

    def permute_runs(self, n_cells: int, generator: torch.Generator) -> CellNumbers:
        """Indices of all cells, in runs at random; where runs start is random too."""
        length = min(self.run_length, n_cells)
        shift = int(torch.randint(length, (), generator=generator))
        firsts = torch.arange(shift - length if shift else 0, n_cells, length)
        firsts = firsts[torch.randperm(len(firsts), generator=generator)]
        cells = (firsts[:, None] + torch.arange(length)).view(-1)
        return cells[(cells >= 0) & (cells < n_cells)]

    def shuffle_buffers(self, cells: CellNumbers, generator: torch.Generator) -> CellNumbers:
        """Cells in another order within each buffer of consecutive ones."""
        shuffled = [
            part[torch.randperm(len(part), generator=generator)]
            for part in cells.split(self.buffer_size)
        ]
        return torch.cat(shuffled) if shuffled else cells


def run_epoch_order(
    cells: CellNumbers,
    order: RunOrder,
    seed: int,
    epoch: int,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> CellNumbers:
    """Cells of one process in the order of one epoch, a function of the arguments alone.

    Processes have different runs, whose numbers of cells differ by one at most.

    Parameters
    ----------
    cells
        Training cells in the order of the files.
    order
        Length of runs and size of the buffer.
    seed, epoch
        Seed of the run, and number of the epoch.
    rank, world_size
        Number of this process, and of all.
    """
    runs = cells[order.permute_runs(len(cells), make_generator(seed, "order", epoch))]
    own = runs.tensor_split(world_size)[rank] if world_size > 1 else runs
    return order.shuffle_buffers(own, make_generator(seed, "buffers", epoch, rank))
