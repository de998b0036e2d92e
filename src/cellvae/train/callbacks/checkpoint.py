"""Checkpoints that are complete models: the best are kept, and the best is brought back."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.messages import logger
from cellvae.train.callbacks.early_stopping import numbered
from cellvae.train.callbacks.monitored import Monitored
from cellvae.train.plan import Best, Plan


class SaveCheckpoint(Checkpoint):
    """Saves the best models of a run as folders that load by themselves, and brings the best back.

    Parameters
    ----------
    dirpath
        Folder for the checkpoints; by default a new one under `checkpoints/` of the run's root.
    filename
        Name of a checkpoint, with `{epoch}`, `{step}`, `{monitor}` or any metric in braces, such as
        `"{epoch}-{elbo_validation:.2f}"`.
    monitor
        Metric that decides which model is best.
    mode
        Whether lower or higher is better; `"auto"` tells it from the name of the metric.
    load_best_on_end
        Whether the best weights are brought back when training ends, or is cut off by an exception.
    check_nan_gradients
        Whether training is stopped by an error at the first loss or gradient that is not finite,
        before it reaches the weights (on a CPU; on other devices at the end of the epoch).
    save_top_k
        How many of the best are kept; -1 for all.
    every_n_epochs
        Epochs between two saves.
    verbose
        Whether every save is told.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str = "elbo_validation",
        load_best_on_end: bool = True,
        check_nan_gradients: bool = True,
        *,
        mode: Literal["min", "max", "auto"] = "auto",
        save_top_k: int = 1,
        every_n_epochs: int = 1,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        if save_top_k < -1 or save_top_k == 0:
            raise InvalidOptionError(
                f"Expected save_top_k to be -1 or at least 1; got {save_top_k}."
            )
        if every_n_epochs < 1:
            raise InvalidOptionError(
                f"Expected every_n_epochs to be at least 1; got {every_n_epochs}."
            )
        self.monitor = monitor
        self.monitored = Monitored(monitor, mode)
        self.dirpath = None if dirpath is None else Path(dirpath).expanduser()
        self.filename = filename or "{epoch}-{monitor}"
        self.load_best_on_end = load_best_on_end
        self.check_nan_gradients = check_nan_gradients
        self.save_top_k = save_top_k
        self.every_n_epochs = every_n_epochs
        self.verbose = verbose
        self.validated = False
        self.not_finite: Tensor | None = None
        self.folder: Path | None = None
        self.kept: dict[Path, float] = {}
        self.best_path: Path | None = None

    @property
    def mode(self) -> str:
        """Direction in which the metric improves."""
        return self.monitored.mode

    @property
    def best_model_path(self) -> str:
        """Folder of the best model so far; empty before the first is saved."""
        return "" if self.best_path is None else str(self.best_path)

    @property
    def best_model_score(self) -> Tensor | None:
        """Value of the metric for the best model."""
        return None if self.monitored.best is None else torch.tensor(self.monitored.best)

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best model."""
        return self.monitored.best_epoch

    @property
    def best_k_models(self) -> dict[str, Tensor]:
        """Folders of the models that are kept, and their scores."""
        return {str(path): torch.tensor(score) for path, score in self.kept.items()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run and choose the folder of this one."""
        self.monitored.clear()
        self.kept, self.best_path = {}, None
        self.validated, self.not_finite = False, None
        self.folder = self.dirpath or new_folder(
            Path(trainer.default_root_dir) / "checkpoints", self.monitor
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that validation metrics are new."""
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the model if it is among the best."""
        self.raise_if_not_finite(trainer)
        fresh = self.monitored.is_fresh(self.validated)
        self.validated = False
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not fresh or not due or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        value = self.monitored.read(trainer.callback_metrics)
        if self.is_among_best(value):
            self.save(value, trainer, pl_module)

    def is_among_best(self, value: float) -> bool:
        """Whether a value is good enough to be kept; one that is not finite never is."""
        if value != value or value in (float("inf"), float("-inf")):
            return False
        if self.save_top_k == -1 or len(self.kept) < self.save_top_k:
            return True
        worst = max(self.kept.values()) if self.mode == "min" else min(self.kept.values())
        return value < worst if self.mode == "min" else value > worst

    def save(self, value: float, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the model as it is, then delete the worst if too many are kept."""
        if not isinstance(pl_module, Plan):
            raise TrainingError(
                "SaveCheckpoint saves models trained by a cellvae Plan; got another module."
            )
        assert self.folder is not None
        epoch = numbered(trainer, pl_module)
        path = self.folder / self.name_of(epoch, value, trainer)
        if self.monitored.is_best(value):
            self.monitored.take(value, epoch)
            self.best_path = path
        found = {"epoch": epoch, "monitor": self.monitor, "score": value, "seed": pl_module.seed}
        pl_module.save_model(path, found)
        self.kept[path] = value
        if self.verbose:
            logger.info("Epoch %d: %s = %.4f, saved in %s.", epoch, self.monitor, value, path)
        if self.save_top_k != -1 and len(self.kept) > self.save_top_k:
            order = sorted(self.kept, key=self.kept.__getitem__, reverse=self.mode == "min")
            self.kept.pop(order[0])
            shutil.rmtree(order[0], ignore_errors=True)
        pl_module.note_best(self.best(restored=False))

    def best(self, *, restored: bool) -> Best:
        """The best model so far."""
        assert self.monitored.best is not None
        assert self.monitored.best_epoch is not None
        return Best(
            monitor=self.monitor,
            epoch=self.monitored.best_epoch,
            score=self.monitored.best,
            path=self.best_model_path,
            restored=restored,
        )

    def name_of(self, epoch: int, value: float, trainer: pl.Trainer) -> str:
        """Name of the folder of a checkpoint."""
        known: dict[str, Any] = {k: float(v) for k, v in trainer.callback_metrics.items()}
        known |= {"epoch": epoch, "step": trainer.global_step}

        def filled(match: re.Match[str]) -> str:
            name, form = match.group(1), match.group(2)
            if name == "monitor":
                return f"{self.monitor.replace('/', '_')}={value:{form or '.4f'}}"
            if name not in known:
                raise InvalidOptionError(
                    f"Expected filename to name a metric in braces; got '{{{name}}}'. "
                    f"Known: {', '.join(known)}."
                )
            plain = "d" if name in ("epoch", "step") else ".4f"
            return f"{name.replace('/', '_')}={known[name]:{form or plain}}"

        return re.sub(r"\{([^{}:]+)(?::([^{}]*))?\}", filled, self.filename)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look for a gradient that is not finite, before it reaches the weights."""
        # In half precision the scaler meets infinite gradients by leaving a step out.
        if not self.check_nan_gradients or str(trainer.precision) == "16-mixed":
            return
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        norms = torch.stack(torch._foreach_norm(gradients))
        found = ~torch.isfinite(norms).all()
        self.not_finite = found if self.not_finite is None else self.not_finite | found
        if found.device.type == "cpu":
            self.raise_if_not_finite(trainer)

    def raise_if_not_finite(self, trainer: pl.Trainer) -> None:
        """Stop training by an error if a gradient was not finite."""
        if self.not_finite is not None and bool(self.not_finite):
            raise TrainingError(
                f"A gradient was not finite in epoch {trainer.current_epoch} "
                f"(step {trainer.global_step}). Check the data for outliers, or lower the "
                "learning rate: plan_kwargs={'lr': ...}."
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the best weights back."""
        if self.load_best_on_end:
            self.restore(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Bring the best weights back; the exception that is on its way is the one raised."""
        if not self.load_best_on_end:
            return
        try:
            self.restore(pl_module)
        except Exception as failure:  # the error that is on its way must not be masked
            logger.warning("The best checkpoint could not be read: %s", failure)

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Put the weights of the best checkpoint into the network."""
        if self.best_path is None or not isinstance(pl_module, Plan) or pl_module.files is None:
            return
        pl_module.module.load_state_dict(pl_module.files.weights(self.best_path))
        pl_module.note_best(self.best(restored=True))


def new_folder(parent: Path, monitor: str) -> Path:
    """Folder under a parent that no other run has, named by the time."""
    stem = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{monitor.replace('/', '_')}"
    candidates = [parent / stem, *(parent / f"{stem}_{i}" for i in range(2, 1000))]
    return next(path for path in candidates if not path.exists())
