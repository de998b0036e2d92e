"""The checkpoints that a run has in its folder: which are the best, and which are too many."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellvae.core.log import logger
from cellvae.train.callbacks.checkpointing.checkpoint_index import (
    CheckpointRecord,
    read_index,
    write_index,
)
from cellvae.train.callbacks.checkpointing.checkpoint_name import (
    EXCEPTION,
    LAST,
    make_unique_folder,
    unused_name,
)
from cellvae.train.loop.training_plan import TrainingPlan

BEST = "best"


class CheckpointStore:
    """Checkpoints of one run in one folder, and the index beside them.

    Parameters
    ----------
    mode
        `"max"` where a higher score is better.
    max_kept
        Number of best checkpoints to keep; -1 for all.
    version_counter
        Whether an existing name gets a counter; otherwise the checkpoint is replaced.
    """

    def __init__(self, mode: str, max_kept: int, *, version_counter: bool) -> None:
        self.sign = -1.0 if mode == "max" else 1.0
        self.max_kept = max_kept
        self.version_counter = version_counter
        self.begin("", None, None)

    def begin(self, run_id: str, folder: Path | None, parent: Path | None) -> None:
        """Forget an earlier run; without a folder, one under the parent is made when needed."""
        self.run_id = run_id
        self.folder = folder
        self.parent = parent
        self.saved: list[CheckpointRecord] = []

    @property
    def rank(self) -> list[CheckpointRecord]:
        """The best, the very best first; of equals the earlier."""
        best = [model for model in self.saved if BEST in model.reasons and model.score is not None]
        return sorted(best, key=lambda m: (self.sign * (m.score or 0.0), m.epoch))

    def is_among_best(self, score: float) -> bool:
        """Whether a score is good enough to be kept; one that is not finite never is."""
        if not math.isfinite(score) or self.max_kept == 0:
            return False
        ranked = self.rank
        if self.max_kept == -1 or len(ranked) < self.max_kept:
            return True
        worst = ranked[-1].score
        return worst is None or self.sign * score < self.sign * worst

    def discard_epoch(self, epoch: int) -> list[CheckpointRecord]:
        """Remove the checkpoints of an epoch from the list, and return them.

        A resumed run repeats epochs of which it may have saved models.
        """
        out = [m for m in self.saved if m.epoch == epoch and not {LAST, EXCEPTION} & {*m.reasons}]
        self.saved = [m for m in self.saved if m not in out]
        return out

    def path_for(self, name: str, mine: Collection[str], what: str) -> Path:
        """Folder for a new checkpoint; those of `mine` may be replaced."""
        if self.folder is None:
            assert self.parent is not None
            self.folder = make_unique_folder(self.parent, what)
        return self.folder / (
            unused_name(self.folder, name, mine) if self.version_counter else name
        )

    def write(self, plan: TrainingPlan, made: CheckpointRecord, more: dict[str, Any]) -> bool:
        """Write a checkpoint; returns whether it can be read again."""
        plan.save_model(made.path, {**made.to_json(), **more})
        try:
            assert plan.files is not None
            plan.files.weights(made.path)
        except Exception as failure:  # of any kind: it must not be called the best
            logger.warning("The checkpoint %s cannot be read again: %s", made.path, failure)
            return False
        self.write_index([*(m for m in self.saved if m.path != made.path), made])
        return True

    def add(self, made: CheckpointRecord, *, writes: bool) -> None:
        """Add a checkpoint, and remove those beyond the best `max_kept`."""
        self.folder = made.path.parent
        self.saved = [*(m for m in self.saved if m.path != made.path), made]
        surplus = [] if self.max_kept == -1 else self.rank[self.max_kept :]
        for model in surplus:
            self.saved.remove(model)
            if others := tuple(reason for reason in model.reasons if reason != BEST):
                self.saved.append(replace(model, reasons=others))
        if writes:
            self.delete(surplus)

    def delete(self, models: Sequence[CheckpointRecord]) -> None:
        """Delete the folders of removed checkpoints, after updating the index."""
        if not models:
            return
        self.write_index(self.saved)
        saved_paths = {model.path for model in self.saved}
        for model in models:
            if model.path not in saved_paths:
                shutil.rmtree(model.path, ignore_errors=True)

    def write_index(self, models: Sequence[CheckpointRecord]) -> None:
        """Write the index of the folder."""
        if self.folder is not None:
            write_index(self.folder, models, self.run_id)

    def state_dict(self) -> dict[str, Any]:
        """What the run has saved, and the name of its folder."""
        return {
            "folder": None if self.folder is None else self.folder.name,
            "run_id": self.run_id,
            "saved": [model.to_json() for model in self.saved],
        }

    def load_state_dict(self, state: dict[str, Any], *, chosen: bool) -> None:
        """Go on with what the run has saved, after the state was written too.

        Those later ones stand in for what they had replaced, until their epoch comes again.

        Parameters
        ----------
        state
            What :meth:`state_dict` gave.
        chosen
            Whether the folder was chosen by the user, who has precedence.
        """
        if not chosen and self.parent is not None and state["folder"] is not None:
            self.folder = self.parent / state["folder"]
        self.run_id = state["run_id"]
        if self.folder is None:
            return
        known = [m for m in read_index(self.folder) if m.run_id == self.run_id]
        names = {model.name for model in known}
        found = [CheckpointRecord.from_json(self.folder, each) for each in state["saved"]]
        self.saved = [m for m in found if m.name not in names and m.path.is_dir()] + known
