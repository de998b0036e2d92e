"""Progress bar of a pass over cells, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from cellvae.core.progress import BAR_DELAY_SECONDS, is_interactive
from cellvae.settings import settings

T = TypeVar("T")


def with_progress(
    batches: Iterator[tuple[slice, T]], n_cells: int, *, silent: bool = False
) -> Iterator[tuple[slice, T]]:
    """Yield batches unchanged, and show a bar on standard error that counts their cells.

    The bar disappears at the end of the pass; after an error or Ctrl-C it stays.

    Parameters
    ----------
    batches
        Positions and cells of each batch.
    n_cells
        Number of cells in all batches.
    silent
        Whether the bar is hidden. It is also hidden without a terminal or notebook, and if
        `settings.progress_bar` is False.
    """
    if silent or not settings.progress_bar or not is_interactive():
        yield from batches
        return
    from tqdm import tqdm

    with tqdm(
        total=n_cells,
        unit=" cells",
        unit_scale=True,
        delay=BAR_DELAY_SECONDS,
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        for positions, batch in batches:
            yield positions, batch
            bar.update(positions.stop - positions.start)
