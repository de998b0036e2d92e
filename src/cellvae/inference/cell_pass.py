"""One pass over cells in a given order, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellvae.contracts import Rows, to_device
from cellvae.core.eval_mode import eval_mode
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
"""Default number of cells that are encoded at a time; larger batches are no faster."""


class CellPass(NamedTuple):
    """Cells to iterate over once, with their order and batch size."""

    rows: Rows[Any]
    cells: Tensor
    """Indices of the cells, [cells]; they may repeat."""
    batch_size: int
    device: torch.device
    silent: bool = False
    """Whether the progress bar is hidden."""

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
    """Pass over the requested cells; with `counts`, cells without counts are refused.

    Raises
    ------
    NotTrainedError, DataMismatchError
        Before any cell is read, as `rows_for` does.
    InvalidOptionError
        If no cells are requested, or `batch_size` is below 1.
    """
    rows: Rows[Any] = model.rows_with_counts(adata) if counts else model.rows_for(adata)
    cells = model.cell_indices(adata, indices)
    if not len(cells):
        raise InvalidOptionError("Expected indices of at least one cell; got none.")
    if batch_size is None:
        batch_size = settings.batch_size
    if batch_size < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {batch_size}.")
    if model.device.type == "cuda":
        # Sparse counts are made dense on the GPU.
        rows = ToDevice(rows, model.device)
    return CellPass(rows, cells, batch_size, model.device, silent)


def iter_cell_batches(
    model: EncoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    counts: bool = False,
    encoded: bool = False,
) -> Iterator[Any]:
    """Batches of the requested cells, in order, on the device of the model.

    With `counts`, cells without counts are refused. `encoded` says that batches are only given to
    the module, so that they may hold sparse counts where it accepts them.

    Raises
    ------
    NotTrainedError, DataMismatchError
        Before any cell is read, as `rows_for` does.
    InvalidOptionError
        If no cells are requested, or `batch_size` is below 1.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=counts)
    sparse = sparse_rows_for(model.module, cell_pass.rows) if encoded else None
    if sparse is not None:
        cell_pass = cell_pass._replace(rows=sparse)
        if batch_size is None and settings.batch_size == DEFAULT_BATCH_SIZE:
            cell_pass = cell_pass._replace(batch_size=ENCODER_BATCH_SIZE)
    return (batch for _, batch in cell_pass.iter_batches())


@contextmanager
def inference_mode(model: EncoderModel) -> Iterator[None]:
    """Context in which the module is in eval mode and autograd is off."""
    with eval_mode(model.module), torch.inference_mode():
        yield
