"""What the order of cells in files costs: entropy, cells per second, and what a model becomes.

`python benchmarks/disk_mixing.py speed --files a.h5ad b.zarr` reads files of cells sorted by sample
(those of `disk.py`) in runs of several lengths, several numbers of runs in a buffer: cells per
second, beside the entropy of the composition of batches relative to a full shuffle, on the samples
of the file and on five times as many. Seconds are those of the processor.

`python benchmarks/disk_mixing.py models --data kang --seeds 0 1 2` trains SCVI from memory and from
a file that is sorted by batch, with the same split and seeds and the order that the package
chooses. Buffers hold a twentieth of the cells, as those of a file of a million cells do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from statistics import mean
from typing import Any

import anndata
import numpy as np
import torch
from disk_files import forget_cached, load_pool

import cellvae
from cellvae.data.batches import mixing
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.run_order import RunOrder
from cellvae.data.storage.sparse import with_csr_columns
from cellvae.evaluation import integration_scores

LENGTHS, RUNS = (1, 4, 16, 64, 256, 1024), (16, 64, 256, 1024, 4096)
LARGEST, SMALLEST = 65_536, 1_024
BUFFERS = 20
METRICS = ("ilisi", "asw_batch", "knn_label_accuracy", "asw_label")
DATA = {
    "kang": ("kang_ctrl_8donors.h5ad", "batch", "cell_type", 15),
    "pbmc_cite": ("pbmc_cite_10k_5k.h5ad", "batch", "cell_type", 8),
    "simulated": (None, "sample", "group", 2),
}


def settings() -> list[RunOrder]:
    """Lengths of runs and runs per buffer for which a buffer fits into memory."""
    return [
        RunOrder(run_length=length, buffer_size=length * runs)
        for runs in RUNS
        for length in LENGTHS
        if SMALLEST <= length * runs <= LARGEST
    ]


def split_samples(codes: np.ndarray, times: int) -> np.ndarray:
    """Samples that are cut into several parts each, for sorted codes."""
    firsts = np.searchsorted(codes, codes)
    sizes = np.bincount(codes)[codes]
    return codes * times + (np.arange(len(codes)) - firsts) * times // sizes


def read_speed(rows: Any, order: RunOrder, path: Path, seconds: float) -> float:
    """Cells per second of processor time, from a file that is not cached, for some seconds."""
    forget_cached(path)
    cells = np.arange(len(rows))
    steps = max(1, min(50, order.buffer_size // 128))
    blocks = EpochBlocks(rows, cells, 128, seed=0, steps_per_block=steps, run_order=order)
    blocks.place = with_csr_columns
    n, begin = 0, time.process_time()
    elapsed = 0.0
    for block in blocks:
        for step in block.steps:
            n += block.rows.take(step).counts.n_cells
        elapsed = time.process_time() - begin
        # A buffer comes at once: only whole ones are counted.
        if elapsed > seconds and n % order.buffer_size < steps * 128:
            break
    return n / elapsed


def measure_speed(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Entropy and cells per second of all settings and files."""
    results = []
    for path in args.files:
        cells = cellvae.data.open_cells(path)
        cellvae.model.SCVI.setup_anndata(cells, batch_key="sample")
        rows = cellvae.model.SCVI(cells).rows
        codes = np.unique(cells.obs["sample"].astype(str), return_inverse=True)[1]
        codes = np.sort(codes)
        for order in settings():
            sizes = {"run_length": order.run_length, "buffer_size": order.buffer_size}
            row = {
                "file": path.name,
                **sizes,
                "entropy": mixing.mixing_entropy(codes, **sizes),
                "entropy_of_many": mixing.mixing_entropy(split_samples(codes, 5), **sizes),
                "cells_per_second": read_speed(rows, order, path, args.seconds),
            }
            print(json.dumps(row), flush=True)
            results.append(row)
    return results


def speed_table(results: list[dict[str, Any]]) -> str:
    """Table by runs per buffer and length of runs."""
    files = list(dict.fromkeys(row["file"] for row in results))
    head = ["runs in a buffer", "cells of a run", "cells in the buffer", "20 samples"]
    head += ["100 samples", *files]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for order in settings():
        same = [
            row
            for row in results
            if (row["run_length"], row["buffer_size"]) == (order.run_length, order.buffer_size)
        ]
        if not same:
            continue
        runs = order.buffer_size // order.run_length
        cells = [f"{number:,}" for number in (runs, order.run_length, order.buffer_size)]
        cells += [f"{same[0][name]:.3f}" for name in ("entropy", "entropy_of_many")]
        cells += [f"{row['cells_per_second'] / 1000:,.0f}" for row in same]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sorted_cells(name: str, folder: Path, real: Path) -> anndata.AnnData:
    """Cells of a data set, one batch after the other."""
    file, batch, label, _ = DATA[name]
    adata = load_pool(folder) if file is None else anndata.read_h5ad(real / file)
    adata.obs = adata.obs[[batch, label]].astype(str).astype("category")
    order = np.argsort(adata.obs[batch].to_numpy(), kind="stable")
    return anndata.AnnData(adata.X[order], obs=adata.obs.iloc[order], var=adata.var[[]])


def train(cells: Any, name: str, seed: int, obs: Any) -> dict[str, float]:
    """Held-out ELBO and scores of a model of these cells."""
    _, batch, label, epochs = DATA[name]
    cellvae.settings.seed = seed
    cellvae.model.SCVI.setup_anndata(cells, batch_key=batch)
    model = cellvae.model.SCVI(cells)
    order = mixing.plan_order(model.rows, np.arange(len(obs)), 128)
    begin = time.perf_counter()
    model.train(
        max_epochs=epochs,
        seed=seed,
        accelerator="cpu",
        plan_kwargs={"n_epochs_kl_warmup": epochs},
        enable_progress_bar=False,
    )
    result = {"seconds": time.perf_counter() - begin}
    result["elbo"] = float(model.get_elbo(indices=model.validation_indices))
    some = np.sort(np.random.default_rng(0).permutation(len(obs))[:8_000])
    latent, own = model.get_latent_representation(indices=some), obs.iloc[some].astype(str)
    known = ~own[label].isin(["nan", "Unknown"]).to_numpy()
    result |= integration_scores(latent, own[batch].to_numpy(), metrics=METRICS[:2])
    result |= integration_scores(
        latent[known], labels=own[label].to_numpy()[known], metrics=METRICS[2:]
    )
    if order is not None:
        result |= {"run_length": order.run_length, "buffer_size": order.buffer_size}
    return result


def measure_models(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Models from memory and from a file, in turns."""
    results = []
    for name in args.data:
        adata = sorted_cells(name, args.folder, args.real)
        mixing.BUFFER_BYTES = int(adata.X.nnz * mixing.BYTES_PER_VALUE / BUFFERS)
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / "cells.h5ad"
            adata.write_h5ad(path)
            for seed in args.seeds:
                for where in ("memory", "file"):
                    cells = adata if where == "memory" else cellvae.data.open_cells(path)
                    row = {"data": name, "seed": seed, "where": where}
                    row |= train(cells, name, seed, adata.obs)
                    print(json.dumps(row), flush=True)
                    results.append(row)
    return results


def models_table(results: list[dict[str, Any]]) -> str:
    """Table of means of the seeds, with the least and the most."""
    names = ("elbo", *METRICS)
    lines = [f"| cells | from | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for data, where in dict.fromkeys((row["data"], row["where"]) for row in results):
        own = [row for row in results if (row["data"], row["where"]) == (data, where)]
        cells = []
        for name in names:
            values = [row[name] for row in own if name in row]
            digits = 1 if name == "elbo" else 3
            low, high = (f"{f(values):.{digits}f}" for f in (min, max)) if values else ("", "")
            cells.append(f"{mean(values):.{digits}f} ({low} to {high})" if values else "")
        lines.append(f"| {data} | {where} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=["speed", "models"])
    add("--files", type=Path, nargs="+", default=[], help="files that disk.py wrote")
    add("--seconds", type=float, default=1.0, help="time for each setting and file")
    add("--data", nargs="+", choices=list(DATA), default=list(DATA))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--real", type=Path, default=Path(__file__).parents[1] / "../shared/data")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "cellvae-disk")
    add("--threads", type=int, default=2)
    add("--join", type=Path, nargs="+", default=[], help="results of earlier runs to be added")
    add("--only-join", action="store_true", help="measure nothing: the table of earlier runs")
    add("--out", type=Path, help="file for all figures (.json)")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    cellvae.settings.progress_bar = False
    results = [row for path in args.join for row in json.loads(path.read_text())["results"]]
    if not args.only_join:
        results += measure_speed(args) if args.what == "speed" else measure_models(args)
    print(speed_table(results) if args.what == "speed" else models_table(results))
    if args.out:
        args.out.write_text(json.dumps({"results": results}, indent=1))


if __name__ == "__main__":
    main()
