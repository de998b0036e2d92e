"""Speed-up, and held-out ELBO against seconds, by the number of processes and of cells.

    python benchmarks/scaling.py --folder cells --out scaling.json --chart scaling.svg

SCVI on 10,000 to 1,000,000 simulated cells x 2,000 genes (10 % of counts not zero) by 1, 2 and 4
processes of one thread each, and by one process with as many threads as there are cores. The batch
size is the total over processes, so that all make the same steps. Seconds start with `train()` and
include the start of the further processes, and a validation after every epoch. Runs that are in the
file already are not made again; with `--repeat 0` it is drawn anew. `--batch-sizes 1024` makes them
with larger batches, which are a panel of their own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import processor
from ranks import run
from simulated import simulated

N_GENES, DENSITY = 2_000, 0.1
EPOCHS = {10_000: 10, 100_000: 3, 1_000_000: 2}
"""Epochs by the number of cells; others have as many as make 300,000 cells, at least two."""
BATCH_SIZE = 128


def jobs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs to be made, size by size; who goes first changes with the repetition."""
    cores = os.cpu_count() or 1
    kinds = [(n, 1) for n in arguments.processes] + [(1, cores)]
    made = []
    for n_cells, batch_size in itertools.product(arguments.cells, arguments.batch_sizes):
        # Runs of the default size have no entry, as in files of before there were others.
        size = {} if batch_size == BATCH_SIZE else {"batch_size": batch_size}
        for seed in range(arguments.repeat):
            shift = seed % len(kinds)
            made += [
                {
                    "data": str(arguments.folder / f"{n_cells}x{N_GENES}.h5ad"),
                    "cells": n_cells,
                    "epochs": arguments.epochs or EPOCHS.get(n_cells, max(2, 300_000 // n_cells)),
                    "seed": seed,
                    "ranks": ranks,
                    "threads": threads,
                    "batch_norm": "all",
                    **size,
                }
                for ranks, threads in kinds[shift:] + kinds[:shift]
            ]
    return made


def label(each: dict[str, Any]) -> str:
    """What a run is called in table and chart."""
    if each["threads"] > 1:
        return f"1 process, {each['threads']} threads"
    return f"{each['ranks']} process{'es' if each['ranks'] > 1 else ''}"


def size_of(each: dict[str, Any]) -> tuple[int, int]:
    """Number of cells, and of the cells of a batch."""
    return each["cells"], each.get("batch_size", BATCH_SIZE)


def summary(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Medians over repetitions: seconds, speed-up over one process of one thread, ELBO."""
    rows = []
    for each in runs:
        epochs = each["seconds of epochs"]
        rows.append(
            {
                "cells": each["cells"],
                "batch size": each.get("batch_size", BATCH_SIZE),
                "run": label(each),
                "s per epoch": np.median(epochs[1:] or epochs),
                "s to the first validation": each["seconds to each validation"][0],
                "s to the last": each["seconds to each validation"][-1],
                "held-out -ELBO": each["elbo_validation"][-1],
                "peak MiB, first process": each["peak MiB, first process"],
            }
        )
    by = ["cells", "batch size"]
    table = pd.DataFrame(rows).groupby([*by, "run"], sort=False).median().reset_index()
    alone = table[table["run"] == "1 process"].set_index(by)
    for name, column in (("epoch", "s per epoch"), ("all", "s to the last")):
        of_one = pd.Series(alone[column].reindex(table.set_index(by).index).to_numpy())
        table[f"speed-up, {name}"] = of_one / table[column]
    return table.sort_values(by, kind="stable")


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Held-out -ELBO against seconds, a panel for each number of cells."""
    from matplotlib import pyplot as plt

    sizes = sorted({size_of(each) for each in runs})
    figure, axes = plt.subplots(1, len(sizes), figsize=(4 * len(sizes), 3.6), squeeze=False)
    labels = list(dict.fromkeys(map(label, runs)))
    for axis, size in zip(axes[0], sizes, strict=True):
        own = [each for each in runs if size_of(each) == size]
        for each in own:
            name = label(each)
            axis.plot(
                each["seconds to each validation"],
                each["elbo_validation"],
                color=f"C{labels.index(name)}",
                marker="." if each["epochs"] < 10 else "",
                alpha=0.9,
                label=name if each["seed"] == 0 else None,
            )
        last = min(each["elbo_validation"][-1] for each in own)
        # The first epoch of all would take most of a panel.
        first = max(each["elbo_validation"][min(1, each["epochs"] - 1)] for each in own)
        margin = 0.05 * (first - last)
        axis.set_ylim(last - margin, first + margin)
        axis.set(title=f"{size[0]:,} cells, {size[1]:,} a batch", xlabel="seconds since train()")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("held-out -ELBO, nats per cell")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the simulated cells")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=list(EPOCHS))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[BATCH_SIZE])
    parser.add_argument("--epochs", type=int, help="in place of those by the number of cells")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"runs": []}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for job in jobs(arguments):
        same = [each for each in found["runs"] if size_of(each) == size_of(job)]
        if any(all(each[key] == value for key, value in job.items()) for each in same):
            continue
        if not Path(job["data"]).exists():
            simulated(job["cells"], N_GENES, DENSITY).write_h5ad(job["data"])
        found["runs"].append(run(job))
        found["machine"] = {"processor": processor(), "cores": os.cpu_count()}
        arguments.out.write_text(json.dumps(found))
    print(summary(found["runs"]).round(2).to_string(index=False))
    if arguments.chart:
        draw(found["runs"], arguments.chart)


if __name__ == "__main__":
    main()
