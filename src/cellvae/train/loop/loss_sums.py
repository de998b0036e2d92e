"""Sums of the loss over an epoch, stored on the device and read once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.core.platform.device_kind import is_cpu
from cellvae.core.platform.torch_adapter import is_not_finite
from cellvae.train.options.metric_names import Split

MAX_PENDING = 25
"""Batches that are added up together."""
MetricsFromSums = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]


class LossSums:
    """Sums of the parts of a loss over the cells of one split in one epoch.

    Parameters
    ----------
    split
        Which cells are summed; part of the names of the metrics.
    metrics_from_sums
        Method of the module, for the extra metrics of its losses.
    n_train
        Training cells, by which the global KL is divided; None for the summed cells.
    loss_parts
        Names of the parts of reconstruction and KL that are summed beside their totals.
    """

    def __init__(
        self,
        split: Split,
        metrics_from_sums: MetricsFromSums | None = None,
        n_train: int | None = None,
        loss_parts: tuple[str, ...] = (),
    ) -> None:
        self.split = split
        self.n_train = n_train
        self.loss_parts = loss_parts
        self.metrics_from_sums = metrics_from_sums
        self.n_cells = 0
        self.n_batches = 0
        self.total: Float[Tensor, " parts"] | None = None
        self.extra_sums: tuple[Tensor, ...] = ()
        self.only_finite = False
        """Whether only batches with a finite loss are added."""
        self.pending: list[tuple[Tensor, ...]] = []
        """Parts of the latest batches, which are added up together."""
        self.adds_each_step = False

    @property
    def sums(self) -> Float[Tensor, " parts"] | None:
        """Sums of all batches so far; None before the first one."""
        self.add_pending()
        return self.total

    @sums.setter
    def sums(self, value: Float[Tensor, " parts"] | None) -> None:
        self.total = value

    def add_at_once(self, *, enabled: bool) -> None:
        """Whether each batch is added at once, as a step that a CUDA graph captures has to."""
        self.adds_each_step = enabled

    def add(self, loss: Loss) -> None:
        """Add a batch; nothing is read from the device."""
        self.accumulate(loss)
        self.count(loss.n_cells)

    def count(self, n_cells: int) -> None:
        """Count a batch and its cells."""
        self.n_cells += n_cells
        self.n_batches += 1

    def accumulate(self, loss: Loss) -> None:
        """Add the sums of a batch on its device, in place from the second batch on.

        On the CPU, where each of the many small operations takes longer than its work, the batches
        of several steps are added together.
        """
        parts = tuple(
            part.detach()
            for part in (
                loss.loss,
                loss.kl_global,
                loss.total_reconstruction,
                loss.total_kl,
                *self.named_parts(loss),
            )
        )
        if self.pending and self.pending[0][2].shape != parts[2].shape:
            self.add_pending()
        self.pending.append(parts)
        at_once = self.adds_each_step or loss.extra_metrics or not is_cpu(loss.loss.device)
        if at_once or len(self.pending) == MAX_PENDING:
            self.add_pending(loss.extra_metrics)

    def add_pending(self, extra_metrics: tuple[Tensor, ...] = ()) -> None:
        """Add the pending batches, with the further sums of the last of them, if it has any."""
        if not self.pending:
            return
        losses, globals_, *by_cell = (torch.stack(part) for part in zip(*self.pending, strict=True))
        self.pending.clear()
        n = by_cell[0].shape[1]
        reconstruction, kl, *named = (part.sum(dim=1) for part in by_cell)
        ones = torch.ones_like(losses)
        rows = (losses * n, reconstruction, kl, globals_, ones * n, ones, *named)
        parts = torch.stack(rows).double()
        extra = [part.detach().double() for part in extra_metrics]
        if self.only_finite:
            bad = is_not_finite(parts).any(dim=0)
            parts = parts.masked_fill(bad, 0.0)
            extra = [part.masked_fill(bad[-1], 0.0) for part in extra]
        added = parts.sum(dim=1)
        self.total = added if self.total is None else self.total.add_(added)
        if extra:
            before = self.extra_sums or tuple(torch.zeros_like(part) for part in extra)
            self.extra_sums = tuple(old.add_(new) for old, new in zip(before, extra, strict=True))

    def named_parts(self, loss: Loss) -> list[Tensor]:
        """Parts of a loss that are summed beside the totals, [cells] each."""
        parts = {**loss.reconstruction, **loss.kl_local}
        return [parts[name] for name in self.loss_parts]

    def means(self) -> dict[str, Tensor]:
        """Metrics of the epoch, on the device, in nats per cell; the KL in the ELBO has weight 1.

        As in scvi-tools `elbo_*` is the negative evidence lower bound: lower is better.
        """
        sums = self.sums
        assert sums is not None
        n_cells, n_batches = sums[4:6]
        loss, reconstruction, kl = sums[:3] / n_cells
        kl_global = sums[3] / n_batches
        n_train = n_cells if self.n_train is None else self.n_train
        means = {
            f"{self.split}_loss": loss,
            f"elbo_{self.split}": reconstruction + kl + kl_global / n_train,
            f"reconstruction_loss_{self.split}": reconstruction,
            f"kl_local_{self.split}": kl,
            f"kl_global_{self.split}": kl_global,
        }
        for name, total in zip(self.loss_parts, sums[6:], strict=True):
            means[f"{name}_{self.split}"] = total / n_cells
        if not self.extra_sums or self.metrics_from_sums is None:
            return means
        further = self.metrics_from_sums(self.extra_sums)
        return means | {f"{self.split}_{name}": value for name, value in further.items()}

    def clear(self) -> None:
        """Set the sums to zero, in place, since a CUDA graph adds to the same tensors."""
        self.n_cells = self.n_batches = 0
        self.pending.clear()
        for part in self.extra_sums if self.total is None else (self.total, *self.extra_sums):
            part.zero_()
