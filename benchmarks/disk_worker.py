"""One measurement of cellvae for `disk.py`: python disk_worker.py KIND task.json result.json."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import cellvae  # isort: skip, since torch then lets threads that wait sleep early

import anndata
import numpy as np
import torch
from clock import EpochClock, peak_mib
from disk_files import forget_cached
from simulated import simulated

from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.mixing import mixing_entropy, mixing_groups, plan_order
from cellvae.data.storage.sparse import with_csr_columns

STEPS_PER_BLOCK = 50


def resident_mib() -> float:
    """Resident memory of this process now, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_mib()
    line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def warm_up(n_genes: int) -> None:
    """Load what the package loads for a first training, so that memory beyond it can be told."""
    adata = simulated(256, n_genes, 0.1)
    cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    cellvae.model.SCVI(adata).train(max_epochs=1, accelerator="cpu")


def prepare(task: dict[str, Any], in_memory: bool) -> tuple[Any, dict[str, float]]:
    """A model of the cells, and the seconds until it was there."""
    begin = time.perf_counter()
    cells: Any = cellvae.data.open_cells(task["path"])
    opened = time.perf_counter()
    if in_memory:
        read = anndata.read_h5ad if task["path"].endswith("h5ad") else anndata.read_zarr
        cells = read(task["path"])
    cellvae.model.SCVI.setup_anndata(cells, batch_key="sample")
    model = cellvae.model.SCVI(cells)
    end = time.perf_counter()
    return model, {"opening_seconds": opened - begin, "setup_seconds": end - opened}


def measure_loader(task: dict[str, Any]) -> dict[str, float]:
    """Cells per second of one epoch of batches, without a network."""
    model, seconds = prepare(task, in_memory=False)
    chosen = np.arange(model.adata.n_obs)
    begin = time.perf_counter()
    order = plan_order(model.rows, chosen, 128)
    planning = time.perf_counter() - begin
    assert order is not None
    blocks = EpochBlocks(
        model.rows, chosen, 128, seed=0, steps_per_block=STEPS_PER_BLOCK, run_order=order
    )
    blocks.place = with_csr_columns
    cold = task["cold"] and forget_cached(Path(task["path"]))
    begin, n = time.perf_counter(), 0
    cpu = time.process_time()
    for block in blocks:
        for step in block.steps:
            n += block.rows.take(step).counts.n_cells
    elapsed = time.perf_counter() - begin
    entropy = mixing_entropy(
        mixing_groups(model.rows, chosen),
        run_length=order.run_length,
        buffer_size=order.buffer_size,
    )
    return {
        "cells_per_second": n / elapsed,
        "seconds": elapsed,
        "cpu_seconds": time.process_time() - cpu,
        "planning_seconds": planning,
        "run_length": order.run_length,
        "buffer_size": order.buffer_size,
        "entropy": entropy,
        "cold": cold,
        **seconds,
    }


def measure_training(task: dict[str, Any], in_memory: bool) -> dict[str, float]:
    """Cells per second of training SCVI: the median of the epochs after the first, if there are."""
    model, seconds = prepare(task, in_memory)
    cold = not in_memory and task["cold"] and forget_cached(Path(task["path"]))
    clock = EpochClock()
    model.train(
        # One epoch that the time limit ends would count as a whole one.
        max_epochs=max(task["epochs"], 2 if task["most_seconds"] else 1),
        seed=0,
        train_size=1.0,
        callbacks=[clock],
        accelerator="cpu",
        enable_progress_bar=False,
        **({"max_time": {"seconds": task["most_seconds"]}} if task["most_seconds"] else {}),
    )
    report = model.training_report
    if report.status == "time_limit":  # a part of an epoch
        speed = report.cells_per_second
        read = speed * report.seconds
        return {"cells_per_second": speed, "cells_read": read, "cold": cold, **seconds}
    times, processor = (values[1:] or values for values in (clock.train, clock.train_cpu))
    return {
        "cells_per_second": model.adata.n_obs / float(np.median(times)),
        "seconds": float(np.median(times)),
        "cpu_seconds": float(np.median(processor)),
        "elbo": float(model.history["elbo_train"].iloc[-1, 0]),
        "cold": cold,
        **seconds,
    }


def main() -> None:
    kind, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    warnings.simplefilter("ignore")
    torch.set_num_threads(task["threads"])
    warm_up(task["n_genes"])
    base = resident_mib()
    result = measure_loader(task) if kind == "loader" else measure_training(task, kind == "memory")
    result |= {"peak_mib": peak_mib() - base, "package_mib": base}
    Path(sys.argv[3]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
