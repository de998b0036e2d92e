"""One training run of SCVI with either package: the same words for both."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import lightning
import numpy as np
import torch
from clock import EpochClock, peak_mib
from protocol import Task, chosen_cells


def answer_task(package: ModuleType, import_seconds: float) -> None:
    """Do the task that the command line names, and save what was measured."""
    task = Task.read(Path(sys.argv[1]))
    torch.set_num_threads(task.threads)
    load = os.getloadavg()[0]
    package.settings.seed = task.seed
    adata = anndata.read_h5ad(task.data)
    adata = adata[chosen_cells(adata.n_obs, task.limit_cells)].copy()
    train, validation = task.load_array("train"), task.load_array("validation")

    begin = time.perf_counter()
    package.model.SCVI.setup_anndata(adata, batch_key=task.batch_key)
    model = package.model.SCVI(adata)
    setup_seconds = time.perf_counter() - begin

    clock = EpochClock()
    begin = time.perf_counter()
    model.train(
        max_epochs=task.max_epochs,
        accelerator="cpu",
        check_val_every_n_epoch=1,
        datasplitter_kwargs={"external_indexing": [train, validation, np.zeros(0, dtype=int)]},
        callbacks=[clock],
        enable_progress_bar=False,
        **plan_words(task),
    )
    fit_seconds = time.perf_counter() - begin
    peak = peak_mib()

    task.save_array("latent", np.asarray(model.get_latent_representation()))
    task.save_array("used_train", np.asarray(model.train_indices))
    task.save_array("used_validation", np.asarray(model.validation_indices))
    task.save_answer(
        {
            "versions": versions(package),
            "threads": torch.get_num_threads(),
            "load_before": load,
            "n_train": len(train),
            "history": histories(model),
            "elbo_passes": held_out_elbo(model, validation, task.elbo_passes),
            "train_seconds": clock.train,
            "train_cpu_seconds": clock.train_cpu,
            "validation_seconds": clock.validation,
            "import_seconds": import_seconds,
            "setup_seconds": setup_seconds,
            "fit_seconds": fit_seconds,
            "peak_mib": peak,
        }
    )


def plan_words(task: Task) -> dict[str, Any]:
    """Words of `train` beyond the defaults of the packages."""
    if task.kl_warmup_epochs is None:
        return {}
    return {"plan_kwargs": {"n_epochs_kl_warmup": task.kl_warmup_epochs}}


def histories(model: Any) -> dict[str, list[float]]:
    """Metrics by epoch."""
    names = list(model.history)
    return {name: [float(v) for v in model.history[name].iloc[:, 0]] for name in names}


def held_out_elbo(model: Any, validation: np.ndarray, n_passes: int) -> list[float]:
    """Negative ELBO of the validation cells, in nats per cell, by pass of new draws."""
    found = []
    for number in range(n_passes):
        torch.manual_seed(number)
        found.append(-float(model.get_elbo(indices=validation)))
    return found


def versions(package: ModuleType) -> dict[str, str]:
    """Versions of what ran."""
    return {
        "package": f"{package.__name__} {package.__version__}",
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
