"""Progress of a pass over cells: a bar where a person watches, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

from cellvae.settings import settings

T = TypeVar("T")

BAR_DELAY_SECONDS = 2.0
"""Passes that are over sooner show no bar."""


def with_progress(
    batches: Iterator[tuple[slice, T]], n_cells: int, *, silent: bool = False
) -> Iterator[tuple[slice, T]]:
    """Batches as they are, with a bar on standard error that counts their cells.

    The bar goes when the pass is over. An error or Ctrl-C ends the pass at once and leaves it.

    Parameters
    ----------
    batches
        Positions and cells of each batch.
    n_cells
        Cells of all batches.
    silent
        Whether there is no bar; there is none either without a terminal or notebook, or where
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


def is_interactive() -> bool:
    """Whether a person watches: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
