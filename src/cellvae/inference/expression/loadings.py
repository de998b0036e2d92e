"""Loadings of genes in a model whose decoder is linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd


class LinearDecoderModule(Protocol):
    """A network with a linear decoder."""

    def loadings(self) -> Tensor:
        """Effect of each latent dimension on each gene, [genes, latent]."""
        ...


class LinearDecoderModel(DecoderModel, Protocol):
    """A trained model with a linear decoder."""

    module: Any
    """Network that is `LinearDecoderModule`."""


def get_loadings(model: LinearDecoderModel) -> pd.DataFrame:
    """Loadings: effect of each latent dimension on each gene, the weights of the linear decoder.

    The effect is on the logarithm of the fraction of a gene, up to a constant that all genes of a
    cell share. Batch normalization is included; effects of batches and covariates are not.

    Parameters
    ----------
    model
        Trained model with a linear decoder.

    Returns
    -------
    DataFrame [genes, latent] with the names of the genes and columns `Z_0`, `Z_1` and so on.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    """
    import pandas as pd

    model.check_trained()
    module: LinearDecoderModule = model.module
    with torch.no_grad():
        values = module.loadings().float().cpu().numpy()
    columns = [f"Z_{i}" for i in range(values.shape[1])]
    return pd.DataFrame(values, index=pd.Index(model.registration.genes), columns=columns)
