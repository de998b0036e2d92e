"""A callback of your own: logs the fraction of the loss that is KL, and stops when it is small."""

from typing import Any

import lightning.pytorch as pl

from cellvae.errors import StopTraining


class KLFraction(pl.Callback):
    """Logs `kl_fraction` every epoch and stops the run when it falls below a threshold."""

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold
        self.n_steps = 0
        self.ending = ""

    def produced_metrics(self) -> list[str]:
        """Metrics that this callback logs, so that others can monitor them."""
        return ["kl_fraction"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the metric; a hook of Lightning."""
        metrics = trainer.callback_metrics
        pl_module.log("kl_fraction", metrics["kl_local_train"] / metrics["elbo_train"])

    def on_step_start(self, step: int) -> None:
        """Runs before a step of a block; a hook of cellvae."""

    def on_step_end(self) -> None:
        """Runs after a step of a block; a hook of cellvae."""
        self.n_steps += 1

    def on_epoch_complete(self, trainer: pl.Trainer, plan: Any) -> None:
        """Runs when the history has all metrics of the epoch; a hook of cellvae."""
        if plan.history.latest("kl_fraction") < self.threshold:
            raise StopTraining("the KL is a small fraction of the loss")

    def on_stop(self, trainer: pl.Trainer, plan: Any, reason: str) -> None:
        """Runs once when the weights are final, however the run ended; a hook of cellvae."""
        self.ending = f"{plan.run.status} after {plan.run.n_epochs_done} epochs: {reason}"
