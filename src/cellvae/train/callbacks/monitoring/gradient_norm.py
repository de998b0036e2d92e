"""Size of the gradients of every epoch, among the metrics."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.core.platform.torch_adapter import norms
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.freeze import network_of
from cellvae.train.callbacks.protocols import Group

GRADIENT_METRICS = ("grad_norm_total", "grad_norm_max", "grad_norm_nonfinite")


class GradNormMonitor(pl.Callback):
    """Logs once an epoch how large gradients were, from some of its steps.

    `grad_norm_total` is the mean over the steps of the length of the whole gradient,
    `grad_norm_max` the largest, and `grad_norm_nonfinite` the number of steps in which it was not
    finite, which the other two leave out. Gradients are read just before the optimizer uses them:
    after the scale of half precision is taken out and before they are clipped. The numbers stay on
    the device until the epoch ends.

    Parameters
    ----------
    per_layer
        Whether the mean length for each parameter is logged too, as `grad_norm/<name>`; 0 for one
        that got no gradient.
    every_n_steps
        Optimizer steps between two measurements; the first step of each epoch is always measured.

    Raises
    ------
    InvalidOptionError
        If `every_n_steps` is below 1.

    Examples
    --------
    >>> from cellvae.train.callbacks.monitoring.gradient_norm import GradNormMonitor
    >>> list(GradNormMonitor().produced_metrics())
    ['grad_norm_total', 'grad_norm_max', 'grad_norm_nonfinite']
    """

    group = Group.PRODUCER

    @check_arguments()
    def __init__(self, per_layer: bool = False, every_n_steps: int = 50) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise InvalidOptionError(
                f"Expected every_n_steps to be at least 1; got {every_n_steps}."
            )
        self.per_layer = per_layer
        self.every_n_steps = every_n_steps
        self.clear()

    def clear(self) -> None:
        """Forget the steps of an epoch."""
        self.n_steps = self.n_looks = 0
        self.total: Tensor | None = None
        self.largest: Tensor | None = None
        self.n_nonfinite: Tensor | None = None
        self.by_name: dict[str, Tensor] = {}

    def produced_metrics(self) -> Sequence[str]:
        """Names of the metrics, without those of single parameters."""
        return GRADIENT_METRICS

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.clear()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self.clear()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the gradients of one step."""
        due = self.n_steps % self.every_n_steps == 0
        self.n_steps += 1
        if not due:
            return
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        everything = network_of(pl_module).named_parameters()
        named = {name: p for name, p in everything if id(p) in mine}
        with_gradient = {name: p.grad for name, p in named.items() if p.grad is not None}
        if not with_gradient:
            return
        lengths = norms(list(with_gradient.values())).detach().float()
        self.add_step(lengths)
        if self.per_layer:
            for name in named:
                self.by_name.setdefault(name, lengths.new_zeros(()))
            for name, norm in zip(with_gradient, lengths, strict=True):
                self.by_name[name] = self.by_name[name] + torch.where(norm.isfinite(), norm, 0.0)

    def add_step(self, norms: Tensor) -> None:
        """Add the lengths of the gradients of all parameters in one step."""
        length = torch.linalg.vector_norm(norms)
        finite = length.isfinite()
        known = torch.where(finite, length, 0.0)
        self.n_looks += 1
        if self.total is None or self.largest is None or self.n_nonfinite is None:
            self.total, self.largest, self.n_nonfinite = known, known, (~finite).float()
        else:
            self.total = self.total + known
            self.largest = torch.maximum(self.largest, known)
            self.n_nonfinite = self.n_nonfinite + ~finite

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch."""
        if self.total is None or self.largest is None or self.n_nonfinite is None:
            return
        n_finite = self.n_looks - self.n_nonfinite
        values = {
            "grad_norm_total": self.total / n_finite,
            "grad_norm_max": torch.where(n_finite > 0, self.largest, torch.nan),
            "grad_norm_nonfinite": self.n_nonfinite,
        }
        values |= {f"grad_norm/{name}": x / self.n_looks for name, x in self.by_name.items()}
        for name, value in values.items():
            pl_module.log(name, value.float(), on_step=False, on_epoch=True, batch_size=1)
