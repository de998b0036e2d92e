"""Progress of a run: one bar over its epochs, or a few plain lines where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from cellvae.contracts import GenerativeModule
from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.protocols import FollowsMetrics, Group, HasGroup
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.metric_names import canonical_name

# Seconds between two redraws within an epoch.
REDRAW_SECONDS = 0.2
# Seconds between two plain lines where there is no terminal.
LINE_SECONDS = 30.0


class EpochBar(ProgressBar):
    """Bar over the epochs of a run with train and validation ELBO; within long epochs it moves too.

    A classifier, which has no ELBO, has train and validation loss there.
    Other metrics that end the run are shown beside them. In a file or a pipe the bar becomes a
    plain message every half minute.

    Parameters
    ----------
    refresh_rate
        Epochs between two updates of the metrics; 0 shows nothing.

    Raises
    ------
    InvalidOptionError
        If `refresh_rate` is negative.

    Examples
    --------
    >>> from cellvae.train import EpochBar
    >>> EpochBar(refresh_rate=10).enabled
    True
    """

    group = Group.RECORDER
    supports_blocks = True

    @check_arguments()
    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__()
        if refresh_rate < 0:
            raise InvalidOptionError(
                f"Expected refresh_rate to be at least 0, for no bar; got {refresh_rate}."
            )
        self.refresh_rate = refresh_rate
        self.enabled = refresh_rate > 0
        self.bar: tqdm[Any] | None = None
        self.drawn = 0.0
        self.logged_lines = 0.0

    def enable(self) -> None:
        """Show the bar."""
        self.enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self.close()
        self.drawn = self.logged_lines = time.monotonic()
        if self.enabled and is_interactive():
            layout = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"
            self.bar = tqdm(
                total=total_epochs(trainer),
                initial=trainer.current_epoch,
                bar_format=layout,
                dynamic_ncols=True,
                leave=True,
            )
            self.bar.set_description_str(epoch_label(trainer, trainer.current_epoch + 1))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar within an epoch."""
        done = batch_idx + 1
        if isinstance(pl_module, TrainingPlan) and not pl_module.automatic_optimization:
            done = pl_module.step_loop.step_of_epoch
        self.move(trainer, done)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar within the validation at the end of an epoch."""
        if not trainer.sanity_checking and trainer.is_last_batch:
            before = sum(trainer.num_val_batches[:dataloader_idx])
            self.move(trainer, n_training_steps(trainer) + before + batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the metrics of the epoch."""
        done, last = trainer.current_epoch + 1, trainer.max_epochs
        if not self.enabled or (done % max(1, self.refresh_rate) and done != last):
            return
        now = time.monotonic()
        if self.bar is not None:
            if now - self.logged_lines < REDRAW_SECONDS and done != last:
                return
            self.draw(trainer, done)
            self.drawn = self.logged_lines = now
        elif now - self.logged_lines > LINE_SECONDS:
            self.logged_lines = now
            logger.info("%s %s", epoch_label(trainer, done), metrics_shown(trainer))

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

    def move(self, trainer: pl.Trainer, n_batches: float) -> None:
        """Move the bar to the share of the epoch that these batches are, now and then."""
        if self.bar is None or time.monotonic() - self.drawn < REDRAW_SECONDS:
            return
        self.drawn = time.monotonic()
        of = n_training_steps(trainer) + n_validation_batches(trainer)
        self.bar.n = max(self.bar.n, trainer.current_epoch + n_batches / max(1, of))
        self.bar.set_description_str(epoch_label(trainer, trainer.current_epoch + 1), refresh=False)
        self.bar.refresh()

    def draw(self, trainer: pl.Trainer, done: int) -> None:
        """Draw the bar after a number of epochs."""
        assert self.bar is not None
        self.bar.n = done
        self.bar.set_description_str(epoch_label(trainer, done), refresh=False)
        self.bar.set_postfix_str(metrics_shown(trainer), refresh=False)
        self.bar.refresh()

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def total_epochs(trainer: pl.Trainer) -> int | None:
    """Number of epochs of a run; None where something else ends it."""
    last = trainer.max_epochs
    return last if last is not None and last > 0 else None


def epoch_label(trainer: pl.Trainer, epoch: int) -> str:
    """Number of an epoch, from 1 on, and of how many."""
    last = total_epochs(trainer)
    return f"Epoch {epoch}" if last is None else f"Epoch {epoch}/{last}"


def n_training_steps(trainer: pl.Trainer) -> float:
    """Steps of training in an epoch, also where Lightning sees several as one batch."""
    plan = trainer.lightning_module
    return plan.n_steps_of_epoch if isinstance(plan, TrainingPlan) else trainer.num_training_batches


def n_validation_batches(trainer: pl.Trainer) -> float:
    """Batches of validation at the end of this epoch; 0 before the first, as nobody knows yet."""
    every = trainer.check_val_every_n_epoch
    if every is None or (trainer.current_epoch + 1) % every:
        return 0
    n = sum(trainer.num_val_batches)
    return n if math.isfinite(n) else 0


def metrics_shown(trainer: pl.Trainer) -> str:
    """Train and validation ELBO or loss, and what else may end the run, for one line."""
    metrics = trainer.callback_metrics
    names = metric_labels(trainer.lightning_module)
    lines = [
        f"{text} {float(metrics[name]):.2f}" for name, text in names.items() if name in metrics
    ]
    others = {canonical_name(name, metrics): None for name in ending_metrics(trainer)}
    lines += [
        f"{name} {float(metrics[name]):.4g}"
        for name in others
        if name in metrics and name not in names
    ]
    return ", ".join(lines)


def metric_labels(plan: pl.LightningModule) -> dict[str, str]:
    """Text before the train and the validation metric of a network, by the name of the metric.

    They are the loss where the network is no generative model and has no ELBO.
    """
    if isinstance(plan, TrainingPlan) and not isinstance(plan.module, GenerativeModule):
        return {"train_loss": "loss train", "validation_loss": "validation"}
    return {"elbo_train": "ELBO train", "elbo_validation": "validation"}


def ending_metrics(trainer: pl.Trainer) -> list[str]:
    """Names of the metrics that may end a run."""
    names: list[str] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, HasGroup) and isinstance(callback, FollowsMetrics):
            names += callback.followed_metrics() if callback.group == Group.STOPPER else []
        elif isinstance(callback, LightningEarlyStopping):
            names.append(callback.monitor)
    return names


def is_interactive() -> bool:
    """Whether a person watches: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
