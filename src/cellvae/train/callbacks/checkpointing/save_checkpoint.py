"""Checkpoints that are complete models; the best is restored at the end of a run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl

from cellvae.core.files.output_files import check_output_folder
from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.callbacks.checkpointing.checkpoint_name import EXCEPTION, LAST, CheckpointName
from cellvae.train.callbacks.checkpointing.checkpoint_store import BEST, CheckpointStore
from cellvae.train.callbacks.checkpointing.checkpoint_trigger import (
    CheckpointTrigger,
    Epochs,
    minutes_of,
)
from cellvae.train.callbacks.checkpointing.checkpoint_writer import CheckpointWriter, epoch_metrics
from cellvae.train.callbacks.monitored_metric import MonitoredMetric
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.metric_names import canonical_name

if TYPE_CHECKING:
    import datetime


class SaveCheckpoint(CheckpointWriter):
    """Saves models of a run as folders that can be loaded, and restores the best.

    Every checkpoint is a whole model: weights, options, names of genes and cells, how cells were
    divided, and the history so far. Beside them lies `checkpoints.json`, which says of each why it
    was saved, when, and with which metrics. Weights that are not finite are never saved. Only
    checkpoints of the run itself are ever deleted or written over.

    Parameters
    ----------
    dirpath
        Folder for the checkpoints; by default a new one under `checkpoints/` of the run's root. Of
        several savers that are given the same, each but the first takes a folder beside it.
    filename
        Name of a checkpoint, with `{epoch}`, `{step}`, `{monitor}` or any metric in braces, such as
        `"{epoch}-{elbo_validation:.2f}"`. Epochs count from 0 here, as in the history.
    monitor
        Metric that decides which model is best; None for no metric, and so no best.
    load_best_on_end
        Whether the best weights are restored when training ends, also after an exception.
    check_nan_gradients
        Accepted so that calls for scvi-tools work, and without effect: every run checks for
        gradients that are not finite, see :class:`NaNGuard`.
    mode
        Whether lower or higher is better; `"auto"` infers it from the name of the metric.
    save_top_k
        How many of the best are kept; -1 for all, 0 for none.
    epochs
        Epochs of the run, the first being 1, whose models are saved and kept whatever the metric
        says, such as `range(10, 101, 10)`; or a function that says of an epoch whether it is one.
    every_n_epochs, every_n_minutes
        How often the metric is checked; every epoch by default. Given both, either is enough.
        Without a metric, how often a model is saved; all of them are kept.
    save_last
        Whether the model after the last completed epoch is kept in the folder `last`, which is
        replaced at the end of every epoch, so that it is there whatever ends the run.
    save_on_exception
        Whether the model at an exception is saved in the folder `exception`.
    verbose
        Whether every save is logged.
    auto_insert_metric_name
        Whether `{epoch}` becomes `epoch=3` in a name; otherwise `3`.
    enable_version_counter
        Whether a name that is taken gets a counter; otherwise what has it is replaced.
    save_on_train_epoch_end
        Accepted so that calls for Lightning work, and without effect: models are saved at the end
        of an epoch, when all its metrics are known.
    save_weights_only
        Accepted for the same reason; only False is refused, since optimizers are not saved here.
    train_time_interval
        Lightning's name of `every_n_minutes`.

    Raises
    ------
    InvalidOptionError
        If an argument is out of its range, or nothing would ever be saved.

    Examples
    --------
    >>> from cellvae.train import SaveCheckpoint
    >>> SaveCheckpoint(monitor="ilisi_validation", save_top_k=3, save_last=True).mode
    'max'
    """

    group: Group = Group.CHECKPOINT

    @check_arguments("epochs")
    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = "elbo_validation",
        load_best_on_end: bool = True,
        check_nan_gradients: bool = True,
        *,
        mode: Literal["min", "max", "auto"] = "auto",
        save_top_k: int = 1,
        epochs: Epochs | None = None,
        every_n_epochs: int | None = None,
        every_n_minutes: float | None = None,
        save_last: bool = False,
        save_on_exception: bool = True,
        verbose: bool = False,
        auto_insert_metric_name: bool = True,
        enable_version_counter: bool = True,
        save_on_train_epoch_end: bool | None = None,
        save_weights_only: bool | None = None,
        train_time_interval: datetime.timedelta | None = None,
    ) -> None:
        super().__init__()
        if save_top_k < -1:
            raise InvalidOptionError(f"Expected save_top_k to be at least -1; got {save_top_k}.")
        if save_weights_only is False:
            raise InvalidOptionError(
                "Expected save_weights_only to be left out; got False. SaveCheckpoint saves models "
                "for use, without optimizers. For runs that go on, train(run_dir=...) keeps a "
                "TrainingCheckpoint."
            )
        minutes = minutes_of(every_n_minutes, train_time_interval)
        self.trigger = CheckpointTrigger(epochs, every_n_epochs, minutes)
        if monitor is None and epochs is None and not (self.trigger.is_periodic or save_last):
            raise InvalidOptionError(
                "Expected something that tells when to save; got monitor=None alone. Give a "
                "metric, epochs, every_n_epochs, every_n_minutes or save_last=True."
            )
        self.monitor = monitor
        self.monitored = None if monitor is None else MonitoredMetric(monitor, mode)
        self.mode = mode if self.monitored is None else self.monitored.mode
        self.dirpath = None if dirpath is None else check_output_folder(dirpath, "dirpath")
        self.filename = filename
        self.naming = CheckpointName(filename, monitor, insert_names=auto_insert_metric_name)
        self.load_best_on_end = load_best_on_end
        self.check_nan_gradients = check_nan_gradients
        self.save_top_k = save_top_k
        self.epochs = epochs
        self.every_n_epochs = every_n_epochs
        self.every_n_minutes = every_n_minutes
        self.save_last = save_last
        self.save_on_exception = save_on_exception
        self.verbose = verbose
        self.auto_insert_metric_name = auto_insert_metric_name
        self.enable_version_counter = enable_version_counter
        self.save_on_train_epoch_end = save_on_train_epoch_end
        self.save_weights_only = save_weights_only
        self.train_time_interval = train_time_interval
        self.models = CheckpointStore(self.mode, save_top_k, version_counter=enable_version_counter)

    @property
    def state_key(self) -> str:
        """Name under which a state keeps this callback; another for other settings."""
        settings = {
            "dirpath": None if self.dirpath is None else str(self.dirpath),
            "filename": self.filename,
            "monitor": self.monitor,
            "mode": self.mode,
            "save_top_k": self.save_top_k,
            "epochs": self.trigger.describe(),
            "every_n_epochs": self.every_n_epochs,
            "every_n_minutes": self.trigger.every_n_minutes,
            "save_last": self.save_last,
        }
        return f"{type(self).__qualname__}{settings}"

    def followed_metrics(self) -> Sequence[str]:
        """The metric that decides which model is best."""
        return [] if self.monitor is None else [self.monitor]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset the state of an earlier run, and choose the folder of this one."""
        if stage != "fit":
            return
        if not isinstance(pl_module, TrainingPlan):
            raise TrainingError(
                "SaveCheckpoint saves models trained by a cellvae Plan; got another module. Use "
                "lightning.pytorch.callbacks.ModelCheckpoint for it."
            )
        self.trigger.start()
        folder = self.dirpath
        if folder is not None:
            others = [c for c in trainer.callbacks if isinstance(c, SaveCheckpoint)]  # type: ignore[attr-defined]
            before = others[: others.index(self)] if self in others else []
            used = {c.folder for c in before}
            beside = (folder.with_name(f"{folder.name}_{i}") for i in range(2, 1000))
            folder = next(path for path in (folder, *beside) if path not in used)
        self.models.begin(
            pl_module.run.run_id or secrets.token_hex(6),
            folder,
            Path(trainer.default_root_dir) / "checkpoints",
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the model if it is due, and among the best where a metric decides."""
        if trainer.fast_dev_run or not isinstance(pl_module, TrainingPlan):  # type: ignore[attr-defined]
            return
        again = self.models.discard_epoch(pl_module.epoch)
        score = self.current_score(trainer, pl_module)
        why = self.reasons_to_save(trainer, pl_module, score)
        if why:
            best = self.best_score
            saved = self.save(trainer, pl_module, why, score, mine=[m.name for m in again])
            if saved is not None and self.verbose:
                self.log_saved(saved, best)
        if trainer.is_global_zero:
            self.models.delete(again)
        if self.save_last:
            self.save(trainer, pl_module, (LAST,), score, name=LAST)

    def current_score(self, trainer: pl.Trainer, plan: TrainingPlan) -> float | None:
        """Value of the metric if it has one of this epoch."""
        if self.monitored is None:
            return None
        metrics = trainer.callback_metrics
        name = canonical_name(self.monitored.name, metrics)
        if name not in metrics or not plan.is_fresh(name):
            return None
        known = epoch_metrics(plan)
        return known[name] if name in known else self.monitored.read(metrics)

    def reasons_to_save(
        self, trainer: pl.Trainer, plan: TrainingPlan, score: float | None
    ) -> tuple[str, ...]:
        """Why the model of this epoch is saved; empty if it is not."""
        n = plan.epoch - plan.first_epoch + 1
        why = ["epochs"] if self.trigger.is_chosen_epoch(n) else []
        # Clocks of processes differ: that of the first one counts.
        over = trainer.strategy.broadcast(self.trigger.elapsed_periods(n))
        if self.monitored is None:
            return (*why, *over)
        looked_at = bool(over) or not self.trigger.is_periodic
        if looked_at and score is not None and self.models.is_among_best(score):
            why.append(BEST)
        return tuple(why)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the best weights."""
        if self.load_best_on_end and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.restore(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save the model and restore the best weights; only the exception itself is raised."""
        wanted = self.save_on_exception and trainer.global_step and not trainer.fast_dev_run  # type: ignore[attr-defined]
        try:
            if wanted and isinstance(pl_module, TrainingPlan) and pl_module.files is not None:
                error = f"{type(exception).__name__}: {exception}"
                self.save(trainer, pl_module, (EXCEPTION,), None, name=EXCEPTION, error=error)
        except Exception as failure:
            logger.warning("The model at the exception could not be saved: %s", failure)
        try:
            if self.load_best_on_end:
                self.restore(pl_module)
        except Exception as failure:
            logger.warning("The best checkpoint could not be brought back: %s", failure)

    def state_dict(self) -> dict[str, Any]:
        """What this run has saved, and where."""
        return self.models.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the checkpoints of a resumed run, also those saved after this state."""
        self.models.load_state_dict(state_dict, chosen=self.dirpath is not None)
