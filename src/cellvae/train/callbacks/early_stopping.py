"""Early stopping that says why it stopped and brings the best weights back."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from torch import Tensor, nn

from cellvae.messages import logger
from cellvae.train.callbacks.monitored import Monitored
from cellvae.train.plan import Best, Plan


class EarlyStopping(LightningEarlyStopping):
    """Stops training when a metric no longer improves, and brings the best weights back.

    Can be given to any Lightning trainer.

    Parameters
    ----------
    monitor
        Metric that is followed.
    min_delta
        Change that counts as an improvement must be larger than this.
    patience
        Checks without improvement after which training stops.
    mode
        Whether lower or higher is better; `"auto"` tells it from the name of the metric.
    warmup_epochs
        First epochs, which are neither compared nor counted.
    restore_best
        Whether the weights of the best epoch are brought back at the end, however it comes;
        otherwise the last ones stay.
    strict
        Whether it is an error if nothing logs the metric; otherwise the epoch is passed over.
    check_finite
        Whether training stops when the metric is not a finite number.
    stopping_threshold
        Value that is good enough: training stops when the metric is better.
    divergence_threshold
        Value that is hopeless: training stops when the metric is worse.
    verbose
        Whether every improvement is told.

    Raises
    ------
    InvalidOptionError
        If the mode is `"auto"` and the name of the metric does not tell the direction.
    """

    def __init__(
        self,
        monitor: str = "elbo_validation",
        min_delta: float = 0.0,
        patience: int = 45,
        verbose: bool = False,
        mode: Literal["min", "max", "auto"] = "auto",
        *,
        warmup_epochs: int = 0,
        restore_best: bool = True,
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
    ) -> None:
        self.monitored = Monitored(monitor, mode, min_delta)
        super().__init__(
            monitor=monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode=self.monitored.mode,
            strict=strict,
            check_finite=check_finite,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
        )
        self.warmup_epochs = warmup_epochs
        self.restore_best = restore_best
        self.reason: str | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.validated = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.monitored.clear()
        self.wait_count, self.stopped_epoch, self.reason = 0, 0, None
        self.best_weights = None
        self.validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that validation metrics are new."""
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the metric with its best, and stop if it is time."""
        fresh = self.monitored.is_fresh(self.validated)
        self.validated = False
        if not fresh or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not self.strict and self.monitor not in trainer.callback_metrics:
            return
        value = self.monitored.read(trainer.callback_metrics)
        epoch = numbered(trainer, pl_module)
        self.reason = self.judge(
            value, epoch, trainer.current_epoch < self.warmup_epochs, network(pl_module)
        )
        if isinstance(pl_module, Plan) and self.monitored.best is not None:
            pl_module.note_best(self.best(restored=False))
        if self.reason is not None:
            self.stopped_epoch = epoch
            trainer.should_stop = True

    def judge(self, value: float, epoch: int, warming_up: bool, module: nn.Module) -> str | None:
        """Reason to stop, or None; keeps the weights of an epoch that is the best so far."""
        name = self.monitored.name
        if not math.isfinite(value):
            return f"{name} was {value} in epoch {epoch}" if self.check_finite else None
        if warming_up:
            return None
        if self.stopping_threshold is not None and self.is_past(value, self.stopping_threshold):
            self.keep(value, epoch, module)
            return f"{name} reached {value:.4f}, past the threshold of {self.stopping_threshold:g}"
        if self.divergence_threshold is not None and self.is_past(
            -value, -self.divergence_threshold
        ):
            return (
                f"{name} reached {value:.4f}, beyond the threshold of {self.divergence_threshold:g}"
            )
        if self.monitored.is_best(value):
            self.keep(value, epoch, module)
        if self.monitored.counts_as_improvement(value):
            if self.verbose:
                logger.info("Epoch %d: %s improved to %.4f.", epoch, name, value)
            self.wait_count = 0
            return None
        self.wait_count += 1
        if self.wait_count >= self.patience:
            by = f" by more than {self.monitored.min_delta:g}" if self.monitored.min_delta else ""
            return f"{name} had not improved{by} for {self.wait_count} checks"
        return None

    def is_past(self, value: float, threshold: float) -> bool:
        """Whether a value is better than a threshold."""
        return value < threshold if self.monitored.mode == "min" else value > threshold

    def keep(self, value: float, epoch: int, module: nn.Module) -> None:
        """Make an epoch the best so far."""
        self.monitored.take(value, epoch)
        self.best_score = torch.tensor(value)
        if self.restore_best:
            self.best_weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def best(self, *, restored: bool) -> Best:
        """The best epoch so far."""
        assert self.monitored.best is not None
        assert self.monitored.best_epoch is not None
        return Best(
            monitor=self.monitored.name,
            epoch=self.monitored.best_epoch,
            score=self.monitored.best,
            restored=restored,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the best weights back and say so."""
        self.restore(pl_module)
        if self.reason is not None:
            best = self.monitored.best
            found = (
                f" Best: {best:.4f} in epoch {self.monitored.best_epoch}"
                + ("; its weights are back." if self.best_weights is not None else ".")
                if best is not None
                else ""
            )
            logger.info("Stopped after epoch %d: %s.%s", self.stopped_epoch, self.reason, found)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Bring the best weights back when training is cut off."""
        self.restore(pl_module)

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Put the weights of the best epoch into the network."""
        if self.best_weights is None:
            return
        network(pl_module).load_state_dict(self.best_weights)
        if isinstance(pl_module, Plan):
            pl_module.note_best(self.best(restored=True))

    def state_dict(self) -> dict[str, Any]:
        """Counters, as plain numbers."""
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.monitored.best,
            "best_epoch": self.monitored.best_epoch,
            "reference": self.monitored.reference,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters of a checkpoint; what the user chose now stays."""
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self.monitored.best = state_dict["best_score"]
        self.monitored.best_epoch = state_dict["best_epoch"]
        self.monitored.reference = state_dict["reference"]
        self.best_weights = state_dict["best_weights"]


LoudEarlyStopping = EarlyStopping
"""The name that scvi-tools gives it."""


def network(pl_module: pl.LightningModule) -> nn.Module:
    """The network whose weights are kept: the module of a plan, else the LightningModule itself."""
    return pl_module.module if isinstance(pl_module, Plan) else pl_module


def numbered(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Number of the epoch as the history counts it."""
    return pl_module.epoch if isinstance(pl_module, Plan) else trainer.current_epoch
