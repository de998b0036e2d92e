"""How fast cells are read from files, and how fast SCVI trains on them, beside cells in memory.

`python benchmarks/disk.py --cells 200000 --compression none gzip --out disk.json` writes files of
simulated cells, one sample after the other, which is the worst case for the order of an epoch.
Each measurement is a process of its own, and memory and files take turns. The files are in the
page cache unless `--drop-cache` can empty it (root on Linux: /proc/sys/vm/drop_caches).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

PART = 20_000
N_GENES, DENSITY = 2_000, 0.15


def write_parts(folder: Path, n_cells: int, compression: str) -> list[Path]:
    """Files of at most `PART` cells each, every one a sample of its own."""
    from simulated import simulated

    folder.mkdir(parents=True, exist_ok=True)
    kind, _, codec = compression.partition("-")
    suffix, codec = (".zarr", codec) if kind == "zarr" else (".h5ad", kind)
    paths = []
    for number, first in enumerate(range(0, n_cells, PART)):
        path = folder / f"sample{number:03}{suffix}"
        paths.append(path)
        if path.exists():
            continue
        adata = simulated(min(PART, n_cells - first), N_GENES, DENSITY, seed=number % 10)
        adata.obs_names = [f"s{number}_{i}" for i in range(adata.n_obs)]
        adata.obs["sample"] = f"s{number}"
        if suffix == ".zarr":
            adata.write_zarr(path)
        else:
            adata.write_h5ad(path, compression=None if codec == "none" else codec)
    return paths


def drop_cache() -> bool:
    """Empty the page cache of Linux; False where the system does not let us."""
    try:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def measure_loader(paths: list[str]) -> dict[str, float]:
    """Cells per second of one epoch of blocks, without a model."""
    import numpy as np

    import cellvae
    from cellvae.data.batches.blocks import EpochBlocks
    from cellvae.data.batches.mixing import plan_order
    from cellvae.data.files.open_cells import open_cells
    from cellvae.data.storage.sparse import with_csr_columns

    cells = open_cells(paths)
    before = peak()
    cellvae.model.SCVI.setup_anndata(cells, batch_key="sample")
    begin = time.perf_counter()
    model = cellvae.model.SCVI(cells)
    setup = time.perf_counter() - begin
    chosen = np.arange(cells.n_obs)
    begin = time.perf_counter()
    order = plan_order(model.rows, chosen, 128)
    planning = time.perf_counter() - begin
    blocks = EpochBlocks(model.rows, chosen, 128, seed=0, steps_per_block=50, run_order=order)
    blocks.place = with_csr_columns
    begin, n = time.perf_counter(), 0
    for block in blocks:
        for step in block.steps:
            n += block.rows.take(step).counts.n_cells
    seconds = time.perf_counter() - begin
    return {
        "cells_per_second": n / seconds,
        "planning_seconds": planning,
        "setup_seconds": setup,
        "run_length": order.run_length,
        "buffer_size": order.buffer_size,
        "peak_mb": peak() - before,
    }


def measure_training(paths: list[str], in_memory: bool, epochs: int) -> dict[str, float]:
    """Cells per second of training SCVI, in the epochs after the first."""
    import cellvae
    from cellvae.data.files.open_cells import open_cells

    cells: Any = open_cells(paths)
    if in_memory:
        cells = cells.to_memory()
    cellvae.model.SCVI.setup_anndata(cells, batch_key="sample")
    model = cellvae.model.SCVI(cells)
    before = peak()
    ends: list[float] = []

    from lightning.pytorch import Callback

    class Clock(Callback):
        """Notes when epochs end."""

        supports_blocks = True

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            ends.append(time.perf_counter())

    model.train(
        max_epochs=epochs + 1, seed=0, train_size=1.0, callbacks=[Clock()], accelerator="cpu"
    )
    seconds = median([end - begin for begin, end in zip(ends, ends[1:], strict=False)])
    return {
        "cells_per_second": cells.n_obs / seconds,
        "elbo": float(model.history["elbo_train"].iloc[-1, 0]),
        "peak_mb": peak() - before,
        "peak_total_mb": peak(),
    }


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(kind: str, paths: list[Path], epochs: int) -> dict[str, float]:
    """Result of a measurement in a process of its own."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [sys.executable, __file__, "--worker", kind, "--epochs", str(epochs)]
        command += ["--result", file.name, *map(str, paths)]
        subprocess.run(command, check=True)
        return json.loads(Path(file.name).read_text())


def work(kind: str, paths: list[str], epochs: int) -> dict[str, float]:
    """Measurement of a worker."""
    if kind == "loader":
        return measure_loader(paths)
    return measure_training(paths, kind == "memory", epochs)


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All measurements, memory and files in turns."""
    results: list[dict[str, Any]] = []
    for n_cells in args.cells:
        for compression in args.compression:
            folder = Path(args.folder) / f"{compression}-{n_cells}"
            paths = write_parts(folder, n_cells, compression)
            for number in range(args.repeats):
                for kind in args.kinds:
                    cold = args.drop_cache and drop_cache()
                    measured = in_process(kind, paths, args.epochs)
                    row = {
                        "cells": n_cells,
                        "compression": compression,
                        "kind": kind,
                        "repeat": number,
                        "cold": cold,
                        **measured,
                    }
                    print(json.dumps(row), flush=True)
                    results.append(row)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Table of the medians, and of the ratio to memory in the same turn."""
    lines = ["| cells | file | what | cells/s | of memory | peak MB |", "|---|---|---|---|---|---|"]
    keys = dict.fromkeys((r["cells"], r["compression"], r["kind"]) for r in results)
    for n_cells, compression, kind in keys:
        same = [r for r in results if (r["cells"], r["compression"]) == (n_cells, compression)]
        own = [r for r in same if r["kind"] == kind]
        memory = {r["repeat"]: r["cells_per_second"] for r in same if r["kind"] == "memory"}
        ratios = [r["cells_per_second"] / memory[r["repeat"]] for r in own if r["repeat"] in memory]
        ratio = f"{median(ratios):.0%}" if ratios and kind == "files" else ""
        speed = median(r["cells_per_second"] for r in own)
        most = max(r["peak_mb"] for r in own)
        lines.append(
            f"| {n_cells:,} | {compression} | {kind} | {speed:,.0f} | {ratio} | {most:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[200_000])
    parser.add_argument("--compression", nargs="+", default=["none", "gzip"])
    parser.add_argument("--kinds", nargs="+", default=["loader", "memory", "files"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "cellvae-disk"))
    parser.add_argument("--drop-cache", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker")
    parser.add_argument("--result", type=Path)
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    if args.worker:
        args.result.write_text(json.dumps(work(args.worker, args.paths, args.epochs)))
        return
    results = compare(args)
    print(table(results))
    if args.out:
        args.out.write_text(json.dumps({"results": results}, indent=1))


if __name__ == "__main__":
    main()
