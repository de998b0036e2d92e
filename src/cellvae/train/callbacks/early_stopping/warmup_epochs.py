"""Epochs at the start of a run in which early stopping does not compare metrics."""

from __future__ import annotations

import math
from typing import Literal

import lightning.pytorch as pl

from cellvae.core.log import warn
from cellvae.errors import InvalidOptionError, TrainingWarning
from cellvae.train.loop.training_plan import TrainingPlan


class StoppingWarmup:
    """The first epochs of a run, or those before the KL weight has its maximum.

    Epochs are counted from the start of the run, also if it is resumed.

    Parameters
    ----------
    length
        Number of epochs, or `"kl"`.
    """

    def __init__(self, length: int | Literal["kl"]) -> None:
        self.length = length

    def check(self, pl_module: pl.LightningModule) -> None:
        """Check that there is a KL weight if the length depends on it.

        Raises
        ------
        InvalidOptionError
            If there is none.
        """
        if self.length == "kl" and not isinstance(pl_module, TrainingPlan):
            raise InvalidOptionError(
                "Expected a Plan of cellvae, which has a KL weight, for warmup_epochs='kl'; "
                f"got a {type(pl_module).__name__}. Give a number of epochs."
            )

    def warn_if_endless(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn if the KL weight will not have its maximum within the run."""
        n_epochs = trainer.max_epochs or 0
        if self.length != "kl" or not isinstance(pl_module, TrainingPlan) or n_epochs < 1:
            return
        n_steps = pl_module.first_step + int(n_epochs * pl_module.n_steps_of_epoch)
        last = pl_module.warmup.weight_at(pl_module.first_epoch + n_epochs - 1, n_steps)
        if last < pl_module.warmup.maximum and not math.isclose(last, pl_module.warmup.maximum):
            warn(
                f"Early stopping waits for a KL weight of {pl_module.warmup.maximum:g}, but the "
                f"weight only reaches {last:.3g} in {n_epochs} epochs. Give early stopping a "
                "number of epochs as its warm-up, or shorten that of the KL weight.",
                TrainingWarning,
            )

    def is_active(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Whether the current epoch belongs to them."""
        if self.length != "kl":
            return epochs_done(trainer, pl_module) < self.length
        assert isinstance(pl_module, TrainingPlan)
        weight, maximum = float(pl_module.kl_weight), pl_module.warmup.maximum
        # The weight on the device is in single precision.
        return weight < maximum and not math.isclose(weight, maximum, rel_tol=1e-6)


def epoch_number(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Number of the epoch as the history counts it."""
    return pl_module.epoch if isinstance(pl_module, TrainingPlan) else trainer.current_epoch


def epochs_done(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Number of epochs of the run before this one."""
    first = pl_module.first_epoch if isinstance(pl_module, TrainingPlan) else 0
    return epoch_number(trainer, pl_module) - first
