"""The index beside the checkpoints of a run: what each is, and why it was kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvae.core.files.output_files import replace_atomically
from cellvae.core.log import logger

INDEX_FILE = "checkpoints.json"
INDEX_VERSION = 2
"""Version of the index; the first had no checksum."""


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """One checkpoint of a run.

    Parameters
    ----------
    path
        Folder of the model.
    epoch, step
        Epoch, as the history counts it, and optimizer steps made in the run.
    why
        Why it was saved: `"best"`, `"epochs"`, `"every_n_epochs"`, `"every_n_minutes"`, `"last"`,
        `"exception"`.
    score
        Value of the metric that decides which is best, if it has one.
    metrics
        All metrics of the epoch.
    run_id
        Name of the run.
    """

    path: Path
    epoch: int
    step: int
    reasons: tuple[str, ...]
    score: float | None
    metrics: Mapping[str, float]
    run_id: str

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    def to_json(self) -> dict[str, Any]:
        """Values for a file; a number that is not finite is left empty."""
        return {
            "name": self.name,
            "epoch": self.epoch,
            "step": self.step,
            "why": list(self.reasons),
            "score": self.score,
            "metrics": {k: v if math.isfinite(v) else None for k, v in self.metrics.items()},
            "run_id": self.run_id,
        }

    @classmethod
    def from_json(cls, folder: Path, values: Mapping[str, Any]) -> CheckpointRecord:
        """Checkpoint in a folder, from the values of a file."""
        name = str(values["name"])
        if name in ("", ".", "..") or Path(name).name != name:
            raise ValueError(f"'{name}' is no name of a folder")
        score = values["score"]
        return cls(
            path=folder / name,
            epoch=int(values["epoch"]),
            step=int(values["step"]),
            reasons=tuple(str(reason) for reason in values["why"]),
            score=None if score is None else float(score),
            metrics={
                str(k): math.nan if v is None else float(v) for k, v in values["metrics"].items()
            },
            run_id=str(values["run_id"]),
        )


def read_index(folder: Path) -> list[CheckpointRecord]:
    """Checkpoints that the index of a folder names and that are there."""
    path = folder / INDEX_FILE
    if not path.is_file():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        check_index(values)
        found = [CheckpointRecord.from_json(folder, each) for each in values["checkpoints"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("The index %s cannot be read: %s. It is written again.", path, error)
        return []
    return [saved for saved in found if saved.path.is_dir()]


def check_index(values: Mapping[str, Any]) -> None:
    """Compare an index with its checksum.

    Raises
    ------
    ValueError
        If it has another, or is of a later version.
    """
    without = values["version"] == 1 and "sha256" not in values
    if not without and (
        values["version"] != INDEX_VERSION or values["sha256"] != index_digest(values)
    ):
        raise ValueError("it was damaged or edited, or is of another version")


def index_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of what an index says; spaces and line ends do not matter."""
    said = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_index(folder: Path, checkpoints: Sequence[CheckpointRecord], run_id: str) -> None:
    """Write the index of a folder: what other runs have there, and the checkpoints of this one."""
    others = [saved for saved in read_index(folder) if saved.run_id != run_id]
    names = {saved.name for saved in checkpoints}
    listed = [saved for saved in others if saved.name not in names]
    listed += [saved for saved in checkpoints if saved.path.is_dir()]
    values = {"version": INDEX_VERSION, "checkpoints": [saved.to_json() for saved in listed]}
    values["sha256"] = index_digest(values)
    folder.mkdir(parents=True, exist_ok=True)
    with replace_atomically(folder / INDEX_FILE) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
