"""One pass over cells in a given order, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellvae.contracts import GenerativeModule, Rows, to_device
from cellvae.core.eval_mode import eval_mode
from cellvae.data.batches.read_ahead import iter_read_batches, keep_rows
from cellvae.data.storage.disk.loaded_rows import stored_reader
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.data.storage.sparse import MAX_DENSITY, accepts_sparse_rows, sparse_rows_for
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
    place: Callable[[Rows[Any]], Rows[Any]] = keep_rows
    """Function of rows in memory: the rows that batches are taken from."""
    first: int = 0
    """Position of the first of the cells, where they are a stretch of another pass."""

    def stretch(self, number: int, n_stretches: int) -> CellPass:
        """Pass over one of several stretches of consecutive cells, which consist of whole batches.

        Batches have the positions that they have in this pass.
        """
        n_batches = -(-len(self.cells) // self.batch_size)
        bounds = [n_batches * i // n_stretches * self.batch_size for i in (number, number + 1)]
        return self._replace(
            cells=self.cells[slice(*bounds)],
            first=self.first + bounds[0],
            silent=self.silent or number > 0,
        )

    def iter_batches(self) -> Iterator[tuple[slice, Any]]:
        """Batches on the device of the model, each with its positions in the pass.

        Cells in files are read by a thread while the caller computes.
        """
        n_cells = len(self.cells)
        if not n_cells:
            return
        steps = iter_read_batches(self.rows, self.cells, self.batch_size, self.place)
        passes = OPEN_PASSES.get()
        if passes is not None:
            passes.callback(steps.close)
        with closing(steps):
            for positions, batch in with_progress(steps, n_cells, silent=self.silent):
                moved = slice(self.first + positions.start, self.first + positions.stop)
                yield moved, to_device(batch, self.device)


def plan_pass(
    model: EncoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    batch_size: int | None,
    *,
    silent: bool = False,
    counts: bool = False,
    encoded: bool = False,
) -> CellPass:
    """Pass over the requested cells; with `counts`, cells without counts are refused.

    `encoded` says that batches are only given to the module, so that they may hold sparse counts
    where it accepts them.

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
    chosen = settings.batch_size if batch_size is None else batch_size
    if chosen < 1:
        raise InvalidOptionError(f"Expected a batch_size of at least 1; got {chosen}.")
    cell_pass = CellPass(rows, cells, chosen, model.device, silent)
    if model.device.type == "cuda":
        # Sparse counts are made dense on the GPU.
        return cell_pass._replace(place=partial(ToDevice, device=model.device))
    if not encoded:
        return cell_pass
    if batch_size is None and chosen == DEFAULT_BATCH_SIZE and reads_sparse(model, rows):
        cell_pass = cell_pass._replace(batch_size=ENCODER_BATCH_SIZE)
    return cell_pass._replace(place=partial(encoder_rows, model.module))


def encoder_rows(module: GenerativeModule[Any], rows: Rows[Any]) -> Rows[Any]:
    """Rows whose batches have sparse counts, if they are sparse and the module accepts them."""
    return sparse_rows_for(module, rows) or rows


def reads_sparse(model: EncoderModel, rows: Rows[Any]) -> bool:
    """Whether batches of the cells will have sparse counts."""
    reader = stored_reader(rows)
    if reader is None:
        return sparse_rows_for(model.module, rows) is not None
    density = reader.matrix.values_per_cell / max(1, reader.n_genes)
    return accepts_sparse_rows(model.module) and density <= MAX_DENSITY


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

    Parameters and exceptions are those of :func:`plan_pass`.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=counts, encoded=encoded)
    return (batch for _, batch in cell_pass.iter_batches())


OPEN_PASSES: ContextVar[ExitStack | None] = ContextVar("OPEN_PASSES", default=None)
"""Ends the passes over cells that were begun in the present :func:`inference_mode`."""


@contextmanager
def inference_mode(model: EncoderModel) -> Iterator[None]:
    """Context in which the module is in eval mode and autograd is off.

    An exception, such as Ctrl-C, also ends the threads that read files for passes that were begun
    in it; otherwise they would go on for as long as the traceback is kept.
    """
    with eval_mode(model.module), torch.inference_mode():
        passes = ExitStack()
        token = OPEN_PASSES.set(passes)
        try:
            yield
        except BaseException:
            passes.close()
            raise
        finally:
            OPEN_PASSES.reset(token)
