"""One training of SCVI by several processes, as JSON: `python ranks_worker.py '{"data": ...}'`.

Lightning starts this script once for each process but the first, which writes the result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import torch

import cellvae


class Clock(pl.Callback):
    """Wall and processor seconds of the training steps of each epoch, and when it was validated."""

    supports_blocks = True

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.validated: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clocks."""
        self.begin = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clocks after the last step."""
        if trainer.is_last_batch:
            self.wall.append(time.perf_counter() - self.begin[0])
            self.processor.append(time.process_time() - self.begin[1])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the clock of the machine, which all processes share."""
        self.validated.append(time.time())


def main() -> None:
    """Train, and write history and seconds."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job.get("threads", 1))
    adata = anndata.read_h5ad(job["data"])
    if job["cells"] < len(adata):
        chosen = np.random.default_rng(0).permutation(len(adata))[: job["cells"]]
        adata = adata[np.sort(chosen)].copy()
    cellvae.settings.seed = job["seed"]
    batch_key = "batch" if "batch" in adata.obs else None
    cellvae.model.SCVI.setup_anndata(adata, batch_key=batch_key)
    model = cellvae.model.SCVI(adata)
    clock = Clock()
    begin, started = time.perf_counter(), time.time()
    model.train(
        job["epochs"],
        devices=job["ranks"],
        accelerator="cpu",
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        sync_batchnorm=job["batch_norm"] == "all",
        batch_size=job.get("batch_size", 128),
        callbacks=[clock],
    )
    seconds = time.perf_counter() - begin
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    table = model.history.table
    result = {
        "elbo_train": table["elbo_train"].tolist(),
        "elbo_validation": table["elbo_validation"].tolist(),
        "computed anew": -float(
            np.mean([model.get_elbo(indices=model.validation_indices) for _ in range(5)])
        ),
        "training cells": len(model.train_indices),
        "seconds of epochs": clock.wall,
        "seconds to each validation": [each - started for each in clock.validated],
        "processor seconds of epochs, first process": clock.processor,
        "seconds of train()": seconds,
        "peak MiB, first process": model.training_report.peak_memory_mib,
    }
    Path(job["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
