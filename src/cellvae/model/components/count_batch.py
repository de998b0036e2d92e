"""What the networks of counts read of a batch of cells."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch


class CountBatch(NamedTuple):
    """Counts and covariates of a batch of cells."""

    counts: Float[Tensor, "cells genes"] | CSRBatch
    batch: Int[Tensor, "cells 1"]
    labels: Int[Tensor, "cells 1"]
    size_factor: Float[Tensor, "cells 1"] | None = None
    categorical: Int[Tensor, "cells categorical"] | None = None
    continuous: Float[Tensor, "cells continuous"] | None = None
    latent_mean: Float[Tensor, "cells latent"] | None = None
    latent_variance: Float[Tensor, "cells latent"] | None = None
    library_mean: Float[Tensor, "cells 1"] | None = None
    library_variance: Float[Tensor, "cells 1"] | None = None
    n_labelled: int = 0
    """Number of cells at the end of the batch that only a classifier is trained on."""
