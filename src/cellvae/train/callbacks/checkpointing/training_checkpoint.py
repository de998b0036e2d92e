"""State of a run, written after whole epochs, from which it can be resumed bit by bit."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl

from cellvae.core.files.output_files import check_output_folder
from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.callbacks.protocols import Group
from cellvae.train.lightning_adapter import all_batches_are_done
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.resume.training_state import capture_state

SUFFIX = ".state"


class TrainingCheckpoint(pl.Callback):
    """Saves the state of a run, so that a run that was killed can be resumed.

    `train(resume=...)` and `train(run_dir=...)` add one. The state is written when an epoch is
    complete: weights, optimizers, schedules, KL weight, random generators, counters of callbacks
    and history. :class:`SaveCheckpoint` keeps models for use; this keeps a run for going on.

    Parameters
    ----------
    dirpath
        Folder for the state; by default the one that `train` chose.
    every_n_epochs
        Epochs between two states.
    every_n_minutes
        Least minutes between two states.
    keep_last
        How many states are kept. The one before the newest is resumed from where the newest is
        damaged.
    delete_on_success
        Whether they are deleted when the run comes to its end.

    Raises
    ------
    InvalidOptionError
        If a number is too small.
    """

    group: ClassVar[Group] = Group.STATE

    @check_arguments()
    def __init__(
        self,
        dirpath: str | Path | None = None,
        *,
        every_n_epochs: int = 1,
        every_n_minutes: float | None = None,
        keep_last: int = 2,
        delete_on_success: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("every_n_epochs", every_n_epochs), ("keep_last", keep_last)):
            if value < 1:
                raise InvalidOptionError(f"Expected {name} to be at least 1; got {value}.")
        if every_n_minutes is not None and every_n_minutes < 0:
            raise InvalidOptionError(
                f"Expected every_n_minutes to be at least 0; got {every_n_minutes}."
            )
        self.dirpath = None if dirpath is None else check_output_folder(dirpath, "dirpath")
        self.every_n_epochs = every_n_epochs
        self.every_n_minutes = every_n_minutes
        self.keep_last = keep_last
        self.delete_on_success = delete_on_success
        self.folder: Path | None = None
        self.clear()

    def clear(self) -> None:
        """Forget an earlier run."""
        self.last_saved: float | None = None
        self.last_epoch: int | None = None
        self.is_complete = True

    @property
    def last_path(self) -> Path | None:
        """File of the newest state."""
        return None if self.folder is None else newest_state(self.folder)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.clear()
        self.folder = self.dirpath or self.folder or Path(trainer.default_root_dir) / "state"
        if (
            not isinstance(pl_module, TrainingPlan)
            or pl_module.files is None
            or pl_module.split is None
        ):
            raise TrainingError(
                "TrainingCheckpoint keeps runs of model.train(); got another module. Use "
                "lightning.pytorch.callbacks.ModelCheckpoint for it."
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state after the last epoch, before anything of this one happens."""
        if trainer.current_epoch > 0 and self.last_epoch != trainer.current_epoch:
            self.save_if_due(trainer, pl_module, trainer.current_epoch)
        self.is_complete = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note whether the epoch was whole."""
        self.is_complete = all_batches_are_done(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state after the last epoch, if it was whole."""
        if self.is_complete and trainer.current_epoch > 0:
            self.save(trainer, pl_module, trainer.current_epoch)

    def save_if_due(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, n_epochs: int
    ) -> None:
        """Write the state if enough epochs or minutes have gone by."""
        minutes = self.every_n_minutes
        if minutes is not None and self.last_saved is not None:
            if time.monotonic() - self.last_saved < 60 * minutes:
                return
        elif minutes is None and n_epochs % self.every_n_epochs:
            return
        self.save(trainer, pl_module, n_epochs)

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, n_epochs: int) -> None:
        """Write the state and delete those that are too many, and those of runs before."""
        assert isinstance(pl_module, TrainingPlan)
        assert pl_module.files is not None and self.folder is not None
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        state = capture_state(trainer, pl_module)
        path = self.folder / f"epoch={n_epochs:06d}{SUFFIX}"
        pl_module.files.write_state(path, state.to_values())
        if self.last_saved is None:
            # What a process left that was killed while it wrote.
            for part in self.folder.glob(f".epoch=*{SUFFIX}-*"):
                part.unlink(missing_ok=True)
        first = self.last_saved is None and not pl_module.run.is_continuation
        self.last_saved, self.last_epoch = time.monotonic(), n_epochs
        states = states_in(self.folder)
        # Later ones are of a run that was resumed from an earlier state.
        for later in states[states.index(path) + 1 :]:
            later.unlink(missing_ok=True)
        states = states[: states.index(path) + 1]
        # A new run begins in this folder: what an older one left is of no use any more.
        old = [p for p in states if p != path] if first else states[: -self.keep_last]
        for each in old:
            each.unlink(missing_ok=True)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Say where the run can be taken up."""
        path = self.last_path
        if path is not None and self.last_saved is not None:
            logger.info("The run can go on from its last whole epoch: train(resume='%s').", path)

    def on_stop(self, trainer: pl.Trainer, plan: TrainingPlan, reason: str) -> None:
        """Delete the states of a run that came to its end."""
        done = plan.run.status in ("completed", "stopped_early")
        if done and self.delete_on_success and self.folder is not None and trainer.is_global_zero:
            for path in states_in(self.folder):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a resumed run needs."""
        return {}


def states_in(folder: Path) -> list[Path]:
    """States in a folder, the oldest first."""
    found = {
        path: int(match.group(1))
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(rf"epoch=(\d+){re.escape(SUFFIX)}", path.name))
    }
    return sorted(found, key=found.__getitem__)


def newest_state(folder: Path) -> Path | None:
    """Newest state in a folder, or in the folder `state` in it; None if there is none."""
    found = states_to_try(folder)
    return found[0] if found else None


def states_to_try(folder: Path) -> list[Path]:
    """States in a folder, or in the folder `state` in it, the newest first."""
    found = states_in(folder) or states_in(folder / "state")
    return found[::-1]
