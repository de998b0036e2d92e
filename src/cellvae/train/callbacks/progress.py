"""Progress of a run: one bar over its epochs, or a few plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from cellvae.messages import logger

# Seconds between two redraws within an epoch.
REDRAW_SECONDS = 0.2
# Seconds between two plain lines where there is no terminal.
LINE_SECONDS = 30.0


class EpochBar(ProgressBar):
    """Bar over the epochs of a run with train and validation ELBO; within long epochs it moves too.

    In a file or a pipe it becomes a plain line every half minute.

    Parameters
    ----------
    refresh_rate
        Epochs between two updates of the metrics; 0 shows nothing.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self.enabled = refresh_rate > 0
        self.bar: tqdm[Any] | None = None
        self.drawn = 0.0
        self.told = 0.0

    def enable(self) -> None:
        """Show the bar."""
        self.enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self.drawn = self.told = time.monotonic()
        if self.enabled and is_interactive():
            layout = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"
            self.bar = tqdm(
                total=trainer.max_epochs, bar_format=layout, dynamic_ncols=True, leave=True
            )
            self.bar.set_description_str(f"Epoch 1/{trainer.max_epochs}")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar within an epoch."""
        if self.bar is None or time.monotonic() - self.drawn < REDRAW_SECONDS:
            return
        self.drawn = time.monotonic()
        self.bar.n = trainer.current_epoch + (batch_idx + 1) / max(1, trainer.num_training_batches)
        self.bar.refresh()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the metrics of the epoch."""
        done, last = trainer.current_epoch + 1, trainer.max_epochs
        if not self.enabled or (done % self.refresh_rate and done != last):
            return
        now = time.monotonic()
        if self.bar is not None:
            if now - self.told < REDRAW_SECONDS and done != last:
                return
            self.draw(trainer, done)
            self.drawn = self.told = now
        elif now - self.told > LINE_SECONDS:
            self.told = now
            logger.info("Epoch %d/%s %s", done, last, metrics_shown(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last epoch and close the bar."""
        if self.bar is not None:
            self.draw(trainer, trainer.current_epoch)
        self.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is shown."""
        self.close()

    def draw(self, trainer: pl.Trainer, done: int) -> None:
        """Draw the bar after a number of epochs."""
        assert self.bar is not None
        self.bar.n = done
        self.bar.set_description_str(f"Epoch {done}/{trainer.max_epochs}", refresh=False)
        self.bar.set_postfix_str(metrics_shown(trainer), refresh=False)
        self.bar.refresh()

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def metrics_shown(trainer: pl.Trainer) -> str:
    """Train and validation ELBO for one line."""
    metrics = trainer.callback_metrics
    names = {"elbo_train": "ELBO train", "elbo_validation": "validation"}
    return ", ".join(
        f"{text} {float(metrics[name]):.2f}" for name, text in names.items() if name in metrics
    )


def is_interactive() -> bool:
    """Whether a person watches: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
