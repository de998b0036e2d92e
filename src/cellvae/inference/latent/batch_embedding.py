"""Learned embedding of the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_matrix
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


class BatchEmbeddingModule(Protocol):
    """A network that may have a learned embedding of the batches."""

    batch_embedding: nn.Embedding | None


class BatchEmbeddingModel(EncoderModel, Protocol):
    """A trained model that may have a learned embedding of the batches."""

    module: Any
    """Network that is `BatchEmbeddingModule`."""


@check_arguments(only=INTEGERS)
def get_batch_representation(
    model: BatchEmbeddingModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    silent: bool = False,
) -> np.ndarray:
    """Embedding of the batch of each cell.

    Parameters
    ----------
    model
        Trained model, made with `batch_representation="embedding"`.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Array [cells, embedding_dim] in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    InvalidOptionError
        If the model has no embedding of the batches.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    module: BatchEmbeddingModule = model.module
    if module.batch_embedding is None:
        raise InvalidOptionError(
            "Expected a model with a learned embedding of batches; this one reads batches as "
            "one-hot columns. Create it with batch_representation='embedding' and train it."
        )

    def embedding_of(module: Any, batch: Any) -> torch.Tensor:
        """Embedding of the batch of each cell."""
        embedding: torch.Tensor = module.batch_embedding(batch.batch.squeeze(-1))
        return embedding

    return collect_matrix(model, cell_pass, embedding_of)
