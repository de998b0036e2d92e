"""Protocols of models: what the functions of inference need of them.

A protocol `XModel` is a model, `XModule` is its network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import GenerativeModule, Rows
from cellvae.data.setup.registration import Registration

if TYPE_CHECKING:
    from anndata import AnnData

    CellChoice = Sequence[int] | Sequence[bool] | Sequence[str] | np.ndarray | slice | None


class EncoderModel(Protocol):
    """A trained model whose module encodes cells into a posterior of the latent."""

    module: GenerativeModule[Any]
    adata: AnnData | None
    """Cells of the model."""

    @property
    def device(self) -> torch.device:
        """Device of the module."""
        ...

    def check_trained(self) -> None:
        """Raise NotTrainedError if the model has not been trained."""
        ...

    def rows_for(self, adata: AnnData | None) -> Rows[Any]:
        """Rows of the cells of the model, or of another AnnData, which is checked."""
        ...

    def rows_with_counts(self, adata: AnnData | None) -> Rows[Any]:
        """Rows as of `rows_for`; DataMismatchError if their counts were dropped."""
        ...

    def cell_indices(self, adata: AnnData | None, indices: CellChoice) -> Tensor:
        """Indices of the requested cells, in the requested order."""
        ...


class DecoderModel(EncoderModel, Protocol):
    """A trained model of genes whose module decodes a latent into a distribution of counts."""

    registration: Registration[Any]
    """Genes and categories of the model."""
