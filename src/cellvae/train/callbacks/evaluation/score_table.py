"""Scores that a callback computes in some of the epochs of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl

from cellvae.errors import InvalidOptionError
from cellvae.train.loop.training_plan import TrainingPlan

Scores = dict[str, float]


class ScoreTable:
    """Scores before the first epoch and after some of the others.

    Parameters
    ----------
    prefix
        What the names of logged scores start with, before a slash.
    every_n_epochs
        Epochs from one to the next; the last epoch of a run always has scores.
    """

    def __init__(self, prefix: str, every_n_epochs: int) -> None:
        self.prefix = prefix
        self.every_n_epochs = every_n_epochs
        self.clear()

    def clear(self) -> None:
        """Reset the state of an earlier run."""
        self.baseline: Scores = {}
        self.rows: list[dict[str, Any]] = []
        self.last_epoch: int | None = None

    def metric_key(self, name: str) -> str:
        """Name under which a score is logged."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether this epoch has scores."""
        n_done = trainer.current_epoch + 1
        return n_done % self.every_n_epochs == 0 or n_done == trainer.max_epochs

    def at_start(
        self, trainer: pl.Trainer, plan: TrainingPlan, compute: Callable[[TrainingPlan], Scores]
    ) -> bool:
        """Compute the scores before the first epoch; a resumed run has them already."""
        if self.baseline:
            return False
        self.baseline = on_rank_zero(trainer, plan, compute)
        # Evaluations that share a prefix share the note.
        note = plan.history.notes.setdefault(self.metric_key("baseline"), {})
        note.update(self.baseline)
        return True

    def at_epoch_end(
        self, trainer: pl.Trainer, plan: TrainingPlan, compute: Callable[[TrainingPlan], Scores]
    ) -> None:
        """Compute and log the scores of this epoch, if it has any."""
        self.last_epoch = plan.epoch
        if not self.is_due(trainer):
            return
        scores = on_rank_zero(trainer, plan, compute)
        self.rows.append({"epoch": plan.epoch, **scores})
        several = trainer.world_size > 1
        for name, value in scores.items():
            plan.log(
                self.metric_key(name),
                value,
                on_step=False,
                on_epoch=True,
                batch_size=1,
                sync_dist=several,
            )

    def at_end(
        self, trainer: pl.Trainer, plan: TrainingPlan, compute: Callable[[TrainingPlan], Scores]
    ) -> None:
        """Add the scores of an epoch that nobody knew to be the last, to the history too."""
        scored = self.rows[-1]["epoch"] if self.rows else None
        if self.last_epoch is None or scored == self.last_epoch:
            return
        scores = on_rank_zero(trainer, plan, compute)
        self.rows.append({"epoch": self.last_epoch, **scores})
        plan.history.add(self.last_epoch, {self.metric_key(k): v for k, v in scores.items()})

    def state_dict(self) -> dict[str, Any]:
        """Scores so far, as plain numbers."""
        return {
            "baseline": dict(self.baseline),
            "rows": [dict(row) for row in self.rows],
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the scores of a resumed run."""
        self.baseline = dict(state["baseline"])
        self.rows = [dict(row) for row in state["rows"]]
        self.last_epoch = state["last_epoch"]


def on_rank_zero(
    trainer: pl.Trainer, plan: TrainingPlan, compute: Callable[[TrainingPlan], Scores]
) -> Scores:
    """Scores computed by the first process and broadcast to the others."""
    scores: Scores = compute(plan) if trainer.is_global_zero else {}
    return dict(trainer.strategy.broadcast(scores))


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Check that options are numbers from 1 on, or None.

    Raises
    ------
    InvalidOptionError
        For the first that is not.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InvalidOptionError(f"Expected {name} to be at least 1; got {count}.")
