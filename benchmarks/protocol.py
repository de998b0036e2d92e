"""What is asked of one run and what it answers: JSON files and arrays in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

# What scvi-tools does if nothing is said, and what the runs here therefore do.
TRAIN_SHARE = 0.9
BATCH_SIZE = 128
SMALLEST_BATCH = 3


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training run.

    `data` is an .h5ad file, `folder` where the answer goes; `limit_cells` takes a fixed random
    subset of the cells, `kl_warmup_epochs` overrides the packages' own defaults.
    """

    data: str
    folder: str
    seed: int
    threads: int
    max_epochs: int
    batch_key: str | None = None
    limit_cells: int | None = None
    kl_warmup_epochs: int | None = None
    elbo_passes: int = 10

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, path: Path) -> Task:
        return cls(**json.loads(path.read_text()))

    @property
    def answer_path(self) -> Path:
        return Path(self.folder) / "answer.json"

    def save_array(self, name: str, values: np.ndarray) -> None:
        np.save(Path(self.folder) / f"{name}.npy", values)

    def load_array(self, name: str) -> np.ndarray:
        return np.load(Path(self.folder) / f"{name}.npy", allow_pickle=False)

    def save_answer(self, answer: dict[str, Any]) -> None:
        self.answer_path.write_text(json.dumps(answer, indent=2))

    def load_answer(self) -> dict[str, Any]:
        return json.loads(self.answer_path.read_text())


def chosen_cells(n_cells: int, limit: int | None) -> np.ndarray:
    """Positions of the cells that take part, in the order of the file."""
    if limit is None or limit >= n_cells:
        return np.arange(n_cells)
    return np.sort(np.random.RandomState(0).permutation(n_cells)[:limit])


def split_of(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation cells as scvi-tools draws them from its seed by default."""
    n_train = ceil(TRAIN_SHARE * n_cells)
    left_over = n_train % BATCH_SIZE
    if 0 < left_over < SMALLEST_BATCH:
        n_train -= left_over
    order = np.random.RandomState(seed).permutation(n_cells)
    n_validation = n_cells - n_train
    return order[n_validation:], order[:n_validation]
