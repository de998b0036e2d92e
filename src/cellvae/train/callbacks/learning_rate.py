"""Learning rate of every epoch, among the metrics."""

from __future__ import annotations

import lightning.pytorch as pl


class RecordLearningRate(pl.Callback):
    """Logs the learning rate of each optimizer as `lr-<name>`, once an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the rates that this epoch uses."""
        for optimizer in trainer.optimizers:
            name = type(optimizer).__name__
            for i, group in enumerate(optimizer.param_groups):
                key = f"lr-{name}" if len(optimizer.param_groups) == 1 else f"lr-{name}/pg{i + 1}"
                pl_module.log(key, float(group["lr"]), on_step=False, on_epoch=True, batch_size=1)
