"""Where a run starts: from scratch, after an earlier run, or from the state of one to resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cellvae.data.setup.cell_values import CellValues
from cellvae.train.records.history import History
from cellvae.train.records.run_state import RunState
from cellvae.train.resume.optimizer_carryover import OptimizerCarryover
from cellvae.train.resume.training_state import (
    TrainingState,
    advance_loops,
    restore_callbacks,
    restore_optimizers,
)


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Where a run starts, apart from the weights of the module.

    Parameters
    ----------
    history
        Metrics of earlier runs of the module.
    carryover
        Optimizers of the run before.
    state
        State of the interrupted run that this one resumes; None for a new run.
    identity
        Model and data of the run as plain values, with which a resumed run must agree.
    cell_values
        Values of each column that the run reads; saved in its training state.
    differing
        A line for each column whose values differ from those in the state to resume.
    state_dir, run_dir
        Folder of the training states, and of everything else that the run writes.
    """

    history: History = field(default_factory=History)
    carryover: OptimizerCarryover | None = None
    state: TrainingState | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    cell_values: Mapping[str, CellValues] = field(default_factory=dict)
    differing: Sequence[str] = ()
    state_dir: Path | None = None
    run_dir: Path | None = None

    @property
    def is_continuation(self) -> bool:
        """Whether there are optimizers to continue."""
        return self.state is not None or self.carryover is not None

    def history_of_run(self) -> History:
        """Copy of the history, to which the run adds its epochs."""
        if self.state is not None:
            return self.state.history.copy()
        history = self.history.copy()
        history.begin_run()
        return history

    def restore_counters(self, run: RunState, trainer: pl.Trainer) -> None:
        """Set the counters of a resumed run, before Lightning's loop starts."""
        if self.state is not None:
            run.resume_counters(
                n_epochs=self.state.n_epochs,
                n_cells_seen=self.state.n_cells_seen,
                seconds=self.state.seconds,
                best=self.state.best,
            )
            advance_loops(trainer, self.state.n_epochs, self.state.n_steps)

    def restore_optimizers(self, trainer: pl.Trainer) -> None:
        """Restore callbacks and optimizers of an earlier run, once the optimizers exist."""
        if self.state is not None:
            restore_callbacks(trainer, self.state)
            restore_optimizers(trainer, self.state)
        elif self.carryover is not None:
            self.carryover.restore(trainer)
