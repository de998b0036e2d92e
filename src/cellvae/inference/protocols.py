"""What each function of inference needs from a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.data.setup.registration import Registration

if TYPE_CHECKING:
    from anndata import AnnData

    CellChoice = Sequence[int] | Sequence[bool] | Sequence[str] | np.ndarray | slice | None


class EncoderModel(Protocol):
    """A trained model whose module gives a posterior of the latent of a cell."""

    module: Module[Any]

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        ...

    def check_trained(self) -> None:
        """Refuse a model that has not been trained."""
        ...

    def rows_for(self, adata: AnnData | None) -> Rows[Any]:
        """Cells to answer for: the model's own, or those of another AnnData once it was checked."""
        ...

    def rows_with_counts(self, adata: AnnData | None) -> Rows[Any]:
        """Cells as `rows_for` has them; refused where their counts were dropped."""
        ...

    def cell_indices(self, adata: AnnData | None, indices: CellChoice) -> Tensor:
        """Numbers of the cells asked for, in the order asked."""
        ...


class DecoderModel(EncoderModel, Protocol):
    """A trained model of genes whose module decodes a latent into a distribution of counts."""

    registration: Registration[Any]
    """Genes and categories that it was made for."""
    adata: AnnData | None
    """Its own cells."""
