"""Sums of the loss over an epoch, kept on the device and read once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.train.metrics import Split


class Tally:
    """Sums of the parts of a loss over the cells of one split in one epoch.

    Parameters
    ----------
    split
        Which cells are summed; part of the names of the metrics.
    extra_names
        Names of the further means that a loss carries.
    """

    def __init__(self, split: Split, extra_names: tuple[str, ...] = ()) -> None:
        self.split = split
        self.extra_names = extra_names
        self.n_cells = 0
        self.n_batches = 0
        self.sums: Float[Tensor, " parts"] | None = None
        self.only_finite = False
        """Whether batches that are not finite are left out."""

    def add(self, loss: Loss) -> None:
        """Add a batch; nothing is read back from the device."""
        n = loss.reconstruction.shape[0]
        parts = torch.stack(
            [
                loss.objective.detach() * n,
                loss.reconstruction.detach().sum(),
                loss.kl.detach().sum(),
                loss.kl_global.detach(),
                torch.full_like(loss.objective, n, requires_grad=False),
                torch.ones_like(loss.objective, requires_grad=False),
                *(value.detach() * n for value in loss.extra),
            ]
        ).double()
        if self.only_finite:
            parts = torch.where(torch.isfinite(parts).all(), parts, 0.0)
        self.sums = parts if self.sums is None else self.sums.add_(parts)
        self.n_cells += n
        self.n_batches += 1

    def means(self) -> dict[str, Tensor]:
        """Metrics of the epoch, still on the device, in nats per cell; the KL of the ELBO is whole.

        As in scvi-tools `elbo_*` is the negative evidence lower bound: lower is better.
        """
        assert self.sums is not None
        n_cells, n_batches = self.sums[4:6]
        objective, reconstruction, kl = self.sums[:3] / n_cells
        kl_global = self.sums[3] / n_batches
        means = {
            f"{self.split}_loss": objective,
            f"elbo_{self.split}": reconstruction + kl + kl_global / n_cells,
            f"reconstruction_loss_{self.split}": reconstruction,
            f"kl_local_{self.split}": kl,
            f"kl_global_{self.split}": kl_global,
        }
        further = self.sums[6:] / n_cells
        return means | {
            f"{name}_{self.split}": further[i] for i, name in enumerate(self.extra_names)
        }

    def clear(self) -> None:
        """Start a new epoch."""
        self.n_cells, self.n_batches, self.sums = 0, 0, None
