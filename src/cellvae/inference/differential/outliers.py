"""Cells of a population that lie apart from the others in the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellvae.core.log import warn
from cellvae.errors import DataWarning
from cellvae.inference.latent.latent_representation import get_latent_representation
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData


def drop_outliers(
    model: DecoderModel,
    adata: AnnData | None,
    populations: list[NDArray[np.int64]],
    batch_size: int | None,
) -> list[NDArray[np.int64]]:
    """Populations without the tenth of their cells that lies farthest outside an ellipsoid."""
    cells = np.unique(np.concatenate(populations))
    latent = get_latent_representation(model, adata, indices=cells, batch_size=batch_size)
    return [
        numbers[inlier_mask(latent[np.searchsorted(cells, numbers)])] for numbers in populations
    ]


def inlier_mask(latent: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each cell lies within the ellipsoid of nine tenths of them, [cells]."""
    from sklearn.covariance import EllipticEnvelope

    if len(latent) <= 2 * latent.shape[1]:
        warn(
            f"Expected more than {2 * latent.shape[1]:,} cells to find outliers in a latent space "
            f"of {latent.shape[1]} dimensions; got {len(latent):,}, which are all kept.",
            DataWarning,
        )
        return np.ones(len(latent), dtype=bool)
    found: NDArray[np.bool_] = EllipticEnvelope(random_state=0).fit_predict(latent) == 1
    return found
