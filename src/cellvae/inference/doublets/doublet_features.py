"""Features by which doublets are detected: the latent of a cell, and its log library size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Rows, to_device
from cellvae.data.batches.batching import map_batches
from cellvae.inference.cell_pass import ENCODER_BATCH_SIZE, inference_mode
from cellvae.inference.latent.latent_representation import posterior_mean
from cellvae.inference.protocols import EncoderModel

MC_SAMPLES = 5_000
"""Samples that the mean of a logistic normal latent is estimated from."""


def encode_features(
    model: EncoderModel, rows: Rows[Any], cells: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Posterior mean of the latent, and log of the mean library size, [cells, latent + 1].

    Parameters
    ----------
    model
        Trained model of counts.
    rows
        Rows of cells, or of simulated doublets.
    cells
        Indices of the rows.
    """

    def encode(batch: Any) -> Tensor:
        latent: Any = model.module.encode(to_device(batch, model.device))
        mean = posterior_mean(model.module, latent.posterior, MC_SAMPLES)
        log_library, library = latent.log_library, latent.log_library_posterior
        if library is not None:
            log_library = library.loc + library.variance / 2
        return torch.cat([mean, log_library], dim=-1).float().cpu()

    with inference_mode(model):
        return map_batches(encode, rows, cells, ENCODER_BATCH_SIZE).numpy()
