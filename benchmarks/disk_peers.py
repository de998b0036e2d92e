"""One measurement of another loader for `disk.py`: python disk_peers.py KIND task.json result.json.

`scvi`: batches of an AnnData that is backed by the file, as scvi-tools reads them; `scvi-training`:
SCVI of scvi-tools on it. `scDataset`: blocks of 64 cells, 256 batches at a time. `annbatch`: a
collection that is converted from the file first, which is timed by itself. Slow ones are measured
for some seconds only; each gives sparse or dense batches of 128 cells, as it does by default.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anndata
import torch
from clock import peak_mib
from disk_files import forget_cached

BATCH_SIZE = 128
N_TRAINING_BATCHES = 60


def count_cells(batches: Iterable[Any], seconds: float) -> dict[str, float]:
    """Cells per second of batches, until they end or so many seconds have passed."""
    n, begin = 0, time.perf_counter()
    elapsed = 0.0
    for batch in batches:
        counts = batch["X"] if isinstance(batch, dict) else batch
        n += counts.shape[0]
        elapsed = time.perf_counter() - begin
        if elapsed > seconds:
            break
    return {"cells_per_second": n / elapsed, "seconds": elapsed, "cells_read": n}


def scvi_batches(path: str) -> Iterable[Any]:
    """Batches of scvi-tools' loader over a backed AnnData."""
    import scvi

    adata = anndata.read_h5ad(path, backed="r")
    scvi.model.SCVI.setup_anndata(adata, batch_key="sample")
    model = scvi.model.SCVI(adata)
    return model._make_data_loader(adata, batch_size=BATCH_SIZE, shuffle=True)


def scdataset_batches(path: str) -> Iterable[Any]:
    """Batches of scDataset over a backed AnnData."""
    from scdataset import BlockShuffling, scDataset

    return scDataset(
        anndata.read_h5ad(path, backed="r"),
        BlockShuffling(block_size=64),
        batch_size=BATCH_SIZE,
        fetch_factor=256,
        fetch_callback=lambda adata, cells: adata.X[cells],
    )


def annbatch_batches(path: str, folder: Path) -> tuple[Iterable[Any], float]:
    """Batches of annbatch with its defaults, and the seconds to convert the file."""
    import zarr
    from annbatch import DatasetCollection, Loader

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    target = folder / f"{Path(path).stem}-annbatch.zarr"
    begin = time.perf_counter()
    if not target.exists():
        DatasetCollection(zarr.open(target, mode="w")).add_adatas([path])
    seconds = time.perf_counter() - begin
    forget_cached(target)
    loader = Loader(batch_size=BATCH_SIZE, shuffle=True, to="torch")
    return loader.use_collection(DatasetCollection(zarr.open(target, mode="r"))), seconds


def scvi_training(path: str) -> dict[str, float]:
    """Cells per second of some batches of training with scvi-tools, from a backed AnnData."""
    import scvi
    from clock import EpochClock

    adata = anndata.read_h5ad(path, backed="r")
    scvi.model.SCVI.setup_anndata(adata, batch_key="sample")
    clock = EpochClock()
    scvi.model.SCVI(adata).train(
        max_epochs=2,
        train_size=1.0,
        accelerator="cpu",
        callbacks=[clock],
        limit_train_batches=N_TRAINING_BATCHES,
        enable_progress_bar=False,
    )
    seconds = clock.train[-1]
    n = N_TRAINING_BATCHES * BATCH_SIZE
    return {"cells_per_second": n / seconds, "seconds": seconds, "cells_read": n}


def main() -> None:
    kind, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    warnings.simplefilter("ignore")
    torch.set_num_threads(task["threads"])
    path = task["path"]
    if kind == "scvi-training":
        forget_cached(Path(path))
        result = scvi_training(path)
    else:
        extra = {}
        if kind == "annbatch":
            batches, extra["conversion_seconds"] = annbatch_batches(path, Path(path).parent)
        else:
            batches = scvi_batches(path) if kind == "scvi" else scdataset_batches(path)
            forget_cached(Path(path))
        result = count_cells(batches, task["seconds"]) | extra
    Path(sys.argv[3]).write_text(json.dumps(result | {"peak_total_mib": peak_mib(), "cold": True}))


if __name__ == "__main__":
    main()
