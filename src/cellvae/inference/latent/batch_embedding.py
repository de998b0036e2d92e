"""Vectors that a model has learned for the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


class BatchEmbeddingModule(Protocol):
    """A network that may have a learned vector for each batch."""

    batch_embedding: nn.Embedding | None


class BatchEmbeddingModel(EncoderModel, Protocol):
    """A trained model whose network may have a learned vector for each batch."""

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
    """Learned vector of the batch of each cell.

    Parameters
    ----------
    model
        Trained model, made with `batch_representation="embedding"`.
    adata
        Cells; None for those that the model was made with.
    indices
        Cells asked for, by number, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether no progress is shown.

    Returns
    -------
    Array [cells, embedding_dim] in the order asked for.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    InvalidOptionError
        If the model has no learned vectors of batches.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    """
    asked = plan_pass(model, adata, indices, batch_size, silent=silent)
    module: BatchEmbeddingModule = model.module
    if module.batch_embedding is None:
        raise InvalidOptionError(
            "Expected a model with learned vectors of batches; this one reads batches as "
            "indicator columns. Make it with batch_representation='embedding' and train it."
        )
    values = np.empty((len(asked.cells), module.batch_embedding.embedding_dim), dtype=np.float32)
    kept = torch.from_numpy(values)
    with inference_mode(model):
        for positions, batch in asked.iter_batches():
            kept[positions] = module.batch_embedding(batch.batch.squeeze(-1)).cpu()
    return values
