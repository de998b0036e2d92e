"""One pass over cells in the order asked, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellvae.contracts import Rows, to_device
from cellvae.data.passes import in_batches
from cellvae.data.rows.entries import readable_entries
from cellvae.data.rows.moved import MovedRows
from cellvae.errors import InvalidOptionError
from cellvae.inference.progress import with_progress
from cellvae.inference.protocols import HasEncoder
from cellvae.settings import USUAL_BATCH, settings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


ENCODED_AT_ONCE = 512
"""Cells that are encoded at a time unless told otherwise: larger batches gain nothing more."""


class Pass(NamedTuple):
    """Cells to go over once, in an order and in batches."""

    rows: Rows[Any]
    cells: Tensor
    """Numbers of the cells, [cells]; they may repeat."""
    batch_size: int
    device: torch.device
    silent: bool = False
    """Whether no progress is shown."""

    def batches(self) -> Iterator[tuple[slice, Any]]:
        """Batches on the device of the model, each with its positions in the pass."""
        n_cells = len(self.cells)
        steps = in_batches(self.rows, self.cells, self.batch_size)
        for positions, batch in with_progress(steps, n_cells, silent=self.silent):
            yield positions, to_device(batch, self.device)


def pass_over(
    model: HasEncoder,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    silent: bool = False,
    counts: bool = False,
) -> Pass:
    """Pass over the cells asked for; with `counts`, their counts have to be there.

    Raises
    ------
    NotTrainedError, DataMismatchError
        At once, as `trained_rows` does.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    rows: Rows[Any] = model.counted_rows(adata) if counts else model.trained_rows(adata)
    cells = model.cells_of(adata, indices)
    if not len(cells):
        raise InvalidOptionError("Expected indices of at least one cell; got none.")
    size = settings.batch_size if batch_size is None else batch_size
    if size < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {size}.")
    if model.device.type == "cuda":
        # Sparse counts are made dense where they are looked at.
        rows = MovedRows(rows, model.device)
    return Pass(rows, cells, size, model.device, silent)


def batches_of(
    model: HasEncoder,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    counts: bool = False,
    encoded: bool = False,
) -> Iterator[Any]:
    """Batches of the cells asked for, in order, on the device of the model.

    With `counts`, their counts have to be there; with `encoded`, only the module reads them, which
    may then be given their entries.

    Raises
    ------
    NotTrainedError, DataMismatchError
        At once, as `trained_rows` does.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    asked = pass_over(model, adata, indices, batch_size, counts=counts)
    sparse = readable_entries(model.module, asked.rows) if encoded else None
    if sparse is not None:
        asked = asked._replace(rows=sparse)
        if batch_size is None and settings.batch_size == USUAL_BATCH:
            asked = asked._replace(batch_size=ENCODED_AT_ONCE)
    return (batch for _, batch in asked.batches())


@contextmanager
def evaluating(model: HasEncoder) -> Iterator[None]:
    """Context in which the module is in eval mode and no gradients are kept."""
    states = [(part, part.training) for part in model.module.modules()]
    model.module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part, training in states:
            part.training = training
