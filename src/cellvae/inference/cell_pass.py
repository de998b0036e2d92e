"""One pass over cells in the order asked, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellvae.contracts import Rows, to_device
from cellvae.data.batches.batching import iter_batches
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.data.storage.sparse import sparse_rows_for
from cellvae.errors import InvalidOptionError
from cellvae.inference.progress import with_progress
from cellvae.inference.protocols import EncoderModel
from cellvae.settings import DEFAULT_BATCH_SIZE, settings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


ENCODER_BATCH_SIZE = 512
"""Cells that are encoded at a time unless told otherwise: larger batches gain nothing more."""


class CellPass(NamedTuple):
    """Cells to go over once, in an order and in batches."""

    rows: Rows[Any]
    cells: Tensor
    """Numbers of the cells, [cells]; they may repeat."""
    batch_size: int
    device: torch.device
    silent: bool = False
    """Whether no progress is shown."""

    def iter_batches(self) -> Iterator[tuple[slice, Any]]:
        """Batches on the device of the model, each with its positions in the pass."""
        n_cells = len(self.cells)
        steps = iter_batches(self.rows, self.cells, self.batch_size)
        for positions, batch in with_progress(steps, n_cells, silent=self.silent):
            yield positions, to_device(batch, self.device)


def plan_pass(
    model: EncoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    silent: bool = False,
    counts: bool = False,
) -> CellPass:
    """Pass over the cells asked for; with `counts`, their counts have to be there.

    Raises
    ------
    NotTrainedError, DataMismatchError
        At once, as `rows_for` does.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    rows: Rows[Any] = model.rows_with_counts(adata) if counts else model.rows_for(adata)
    cells = model.cell_indices(adata, indices)
    if not len(cells):
        raise InvalidOptionError("Expected indices of at least one cell; got none.")
    size = settings.batch_size if batch_size is None else batch_size
    if size < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {size}.")
    if model.device.type == "cuda":
        # Sparse counts are made dense where they are looked at.
        rows = ToDevice(rows, model.device)
    return CellPass(rows, cells, size, model.device, silent)


def iter_cell_batches(
    model: EncoderModel,
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
        At once, as `rows_for` does.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    asked = plan_pass(model, adata, indices, batch_size, counts=counts)
    sparse = sparse_rows_for(model.module, asked.rows) if encoded else None
    if sparse is not None:
        asked = asked._replace(rows=sparse)
        if batch_size is None and settings.batch_size == DEFAULT_BATCH_SIZE:
            asked = asked._replace(batch_size=ENCODER_BATCH_SIZE)
    return (batch for _, batch in asked.iter_batches())


@contextmanager
def eval_mode(model: EncoderModel) -> Iterator[None]:
    """Context in which the module is in eval mode and no gradients are kept."""
    states = [(part, part.training) for part in model.module.modules()]
    model.module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part, training in states:
            part.training = training
