"""One training run with scvi-tools: python worker_peer.py task.json."""

from __future__ import annotations

import sys
import time
from pathlib import Path

begin = time.perf_counter()
import scvi  # noqa: E402

scvi.model.SCVI  # noqa: B018
import_seconds = time.perf_counter() - begin

import anndata  # noqa: E402
import numpy as np  # noqa: E402
from one_run import answer_task  # noqa: E402
from protocol import Task  # noqa: E402
from scvi.dataloaders import DataSplitter  # noqa: E402


def check_split(task: Task) -> None:
    """Check that the split of the task is the one that scvi-tools would have drawn."""
    n_cells = len(task.load_array("train")) + len(task.load_array("validation"))
    cells = anndata.AnnData(np.ones((n_cells, 1), dtype=np.float32))
    scvi.model.SCVI.setup_anndata(cells)
    scvi.settings.seed = task.seed
    splitter = DataSplitter(scvi.model.SCVI(cells).adata_manager)
    splitter.setup()
    assert np.array_equal(splitter.train_idx, task.load_array("train"))
    assert np.array_equal(splitter.val_idx, task.load_array("validation"))


if __name__ == "__main__":
    answer_task(scvi, import_seconds)
    check_split(Task.read(Path(sys.argv[1])))
