"""Writing of models during a run, and restoring of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cellvae.core.log import logger
from cellvae.train.callbacks.checkpointing.checkpoint_index import CheckpointRecord
from cellvae.train.callbacks.checkpointing.checkpoint_name import EXCEPTION, LAST, CheckpointName
from cellvae.train.callbacks.checkpointing.checkpoint_store import BEST, CheckpointStore
from cellvae.train.callbacks.nan.nan_event import weights_are_finite
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.records.run_state import BestEpoch


class CheckpointWriter(Checkpoint):
    """Writes models of a run, ranks them by a metric and restores the best.

    Base class of :class:`SaveCheckpoint`, which decides when a model is saved.

    Attributes
    ----------
    models
        Checkpoints of the run.
    naming
        Names of their folders.
    monitor
        Metric that decides which model is best; None without one.
    save_top_k
        Number of best models to keep; -1 for all.
    verbose
        Whether restoring is logged.
    """

    models: CheckpointStore
    naming: CheckpointName
    monitor: str | None
    save_top_k: int
    verbose: bool

    @property
    def folder(self) -> Path | None:
        """Folder of the checkpoints of this run; None until it is chosen."""
        return self.models.folder

    @property
    def top_k(self) -> list[CheckpointRecord]:
        """The best models that are kept, with path, epoch and score; the best first."""
        return self.models.rank

    @property
    def best_path(self) -> Path | None:
        """Folder of the best model so far."""
        return self.top_k[0].path if self.top_k else None

    @property
    def best_score(self) -> float | None:
        """Value of the metric for the best model."""
        return self.top_k[0].score if self.top_k else None

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best model, as the history counts it."""
        return self.top_k[0].epoch if self.top_k else None

    @property
    def best_model_path(self) -> str:
        """Folder of the best model so far; empty before the first is saved."""
        return "" if self.best_path is None else str(self.best_path)

    @property
    def best_model_score(self) -> Tensor | None:
        """Value of the metric for the best model."""
        return None if self.best_score is None else torch.tensor(self.best_score)

    @property
    def best_k_models(self) -> dict[str, Tensor]:
        """Folders of the best models that are kept, and their scores."""
        return {str(model.path): torch.tensor(model.score) for model in self.top_k}

    @property
    def last_model_path(self) -> str:
        """Folder of the model after the last completed epoch; empty if it is not kept."""
        return next((str(model.path) for model in self.models.saved if LAST in model.reasons), "")

    def save(
        self,
        trainer: pl.Trainer,
        plan: TrainingPlan,
        why: tuple[str, ...],
        score: float | None,
        *,
        name: str | None = None,
        mine: Sequence[str] = (),
        error: str | None = None,
    ) -> CheckpointRecord | None:
        """Save the model as it is, then delete what is too much; None if it cannot be saved."""
        if not weights_are_finite(plan.module):
            logger.warning(
                "Epoch %d: no checkpoint is saved, since the weights are not finite.", plan.epoch
            )
            return None
        metrics, step = epoch_metrics(plan), trainer.global_step
        if name is None:
            wanted = self.naming.fill(epoch=plan.epoch, step=step, score=score, metrics=metrics)
        else:
            wanted, mine = name, [m.name for m in self.models.saved if name in m.reasons]
        chosen = None
        if trainer.is_global_zero:
            chosen = str(self.models.path_for(wanted, mine, self.monitor or "epochs"))
        # At an exception the other processes may never come here.
        together = name != EXCEPTION
        path = Path((trainer.strategy.broadcast(chosen) if together else chosen) or wanted)
        made = CheckpointRecord(
            path=path,
            epoch=plan.epoch,
            step=step,
            reasons=why,
            score=score if score is not None and math.isfinite(score) else None,
            metrics=metrics,
            run_id=self.models.run_id,
        )
        done = False
        if trainer.is_global_zero:
            more = {"monitor": self.monitor, "seed": plan.seed, "error": error}
            done = self.models.write(plan, made, more)
        if not (trainer.strategy.broadcast(done) if together else done):
            return None
        self.models.add(made, writes=trainer.is_global_zero)
        if BEST in why:
            self.report_best(plan, self.top_k[0], restored=False)
        return made

    def log_saved(self, saved: CheckpointRecord, before: float | None) -> None:
        """Say what was saved, and why."""
        text = f"saved ({', '.join(saved.reasons)})"
        if BEST in saved.reasons and saved.score is not None:
            better = saved.path == self.best_path
            text = (
                f"{self.monitor} is {saved.score:.6g}"
                if before is None
                else f"{self.monitor} improved from {before:.6g} to {saved.score:.6g}"
                if better
                else f"{self.monitor} is {saved.score:.6g}, among the best {self.save_top_k}"
            ) + ", saved"
        logger.info("Epoch %d: %s in %s", saved.epoch, text, saved.path)

    def report_best(self, plan: TrainingPlan, model: CheckpointRecord, *, restored: bool) -> None:
        """Tell the plan which model is best."""
        assert self.monitor is not None and model.score is not None
        plan.run.note_best(
            BestEpoch(
                monitor=self.monitor,
                epoch=model.epoch,
                score=model.score,
                path=str(model.path),
                restored=restored,
            )
        )

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Put the weights of the best checkpoint that can be read into the network."""
        if (
            not isinstance(pl_module, TrainingPlan)
            or pl_module.files is None
            or self.monitor is None
        ):
            return
        for model in self.top_k:
            try:
                weights = pl_module.files.weights(model.path)
            except Exception as failure:
                logger.warning("The checkpoint %s could not be read: %s", model.path, failure)
                continue
            pl_module.module.load_state_dict(weights)
            self.report_best(pl_module, model, restored=True)
            if self.verbose:
                logger.info(
                    "Restored the best epoch, %d (%s=%.6g).",
                    *(model.epoch, self.monitor, model.score),
                )
            return
        if self.save_top_k:
            logger.warning("No model was saved as the best by '%s'; none comes back.", self.monitor)


def epoch_metrics(plan: TrainingPlan) -> dict[str, float]:
    """All metrics of the epoch, as the history has them."""
    history = plan.history
    return dict(history.rows[-1]) if history.epochs and history.epochs[-1] == plan.epoch else {}
