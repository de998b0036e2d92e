"""One pass over cells in the order asked, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cellvae.contracts import to_device
from cellvae.data.passes import in_batches
from cellvae.errors import InvalidOptionError
from cellvae.inference.protocols import HasEncoder
from cellvae.settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


def batches_of(
    model: HasEncoder, adata: AnnData | None, indices: CellChoice, batch_size: int | None
) -> Iterator[Any]:
    """Batches of the cells asked for, in order, on the device of the model.

    Raises
    ------
    NotTrainedError, DataMismatchError
        At once, as `trained_rows` does.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    rows = model.trained_rows(adata)
    cells = model.cells_of(adata, indices)
    if not len(cells):
        raise InvalidOptionError("Expected indices of at least one cell; got none.")
    size = settings.batch_size if batch_size is None else batch_size
    return (to_device(batch, model.device) for _, batch in in_batches(rows, cells, size))


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
