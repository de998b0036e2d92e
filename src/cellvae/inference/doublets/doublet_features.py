"""Features by which doublets are detected: latent, log library size, principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Rows, to_device
from cellvae.data.batches.batching import map_batches
from cellvae.inference.cell_pass import ENCODER_BATCH_SIZE, inference_mode
from cellvae.inference.doublets.expression_components import ExpressionComponents
from cellvae.inference.latent.latent_representation import posterior_mean
from cellvae.inference.protocols import EncoderModel

MC_SAMPLES = 5_000
"""Samples that the mean of a logistic normal latent is estimated from."""


def encode_features(
    model: EncoderModel,
    rows: Rows[Any],
    cells: NDArray[np.int64],
    components: ExpressionComponents,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of a network and principal components, in one pass over the counts.

    Parameters
    ----------
    model
        Trained model of counts.
    rows
        Rows of cells, or of simulated doublets.
    cells
        Indices of the rows.
    components
        Axes of the components.

    Returns
    -------
    Posterior mean of the latent and log of the mean library size, [cells, latent + 1], and the
    components, [cells, components].
    """

    def encode(batch: Any) -> tuple[Tensor, Tensor]:
        latent: Any = model.module.encode(to_device(batch, model.device))
        mean = posterior_mean(model.module, latent.posterior, MC_SAMPLES)
        log_library, library = latent.log_library, latent.log_library_posterior
        if library is not None:
            log_library = library.loc + library.variance / 2
        features = torch.cat([mean, log_library], dim=-1).float().cpu()
        return features, components.project(batch.counts)

    with inference_mode(model):
        features, projected = map_batches(encode, rows, cells, ENCODER_BATCH_SIZE)
    return features.numpy(), projected.numpy()
