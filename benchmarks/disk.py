"""How fast cells are read from files, and how fast SCVI trains on them, beside other ways.

`python benchmarks/disk.py --cells 100000 1000000 --forms h5ad-none h5ad-gzip zarr --out disk.json`
writes files of simulated cells (2,000 genes, a tenth of the counts not zero, 20 samples, one after
the other, which is the worst case for the order of an epoch), and measures on them:

- `loader`: one epoch of batches of 128 without a network,
- `files` and `memory`: training of SCVI, in turns,
- with `--peer-python`: `scvi` and `scvi-training` (AnnData's backed mode, scvi-tools), `scDataset`
  and `annbatch`, each where it is installed.

Each measurement is a process of its own. Files are taken out of the page cache before it
(`posix_fadvise(DONTNEED)`, Linux; not a cache of the disk itself) unless `--warm` is given. Memory
is what a process needed beyond what it had after a first training on 256 cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from disk_files import DENSITY, N_GENES, make_file

HERE = Path(__file__).resolve().parent
OWN = ("loader", "files", "memory")
PEERS = ("scvi", "scvi-training", "scDataset", "annbatch")
FORMS = ("h5ad-none", "h5ad-gzip", "h5ad-lzf", "zarr")


def measure(kind: str, task: dict[str, Any], python: str) -> dict[str, Any]:
    """Result of one measurement in a process of its own, or why there is none."""
    script = "disk_worker.py" if kind in OWN else "disk_peers.py"
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"])}
    if kind in PEERS:
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "task.json", Path(folder) / "result.json"
        given.write_text(json.dumps(task))
        command = [python, str(HERE / script), kind, str(given), str(result)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1] if done.stderr else "no result"}
        return json.loads(result.read_text())


def measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All measurements; the kinds take turns."""
    results: list[dict[str, Any]] = []
    for n_cells in args.cells:
        for form in args.forms:
            path = make_file(args.folder, n_cells, form)
            task = {
                "path": str(path),
                "cold": not args.warm,
                "threads": args.threads,
                "epochs": args.epochs,
                "seconds": args.seconds,
                "most_seconds": args.most_seconds,
                "n_genes": N_GENES,
            }
            for turn in range(args.repeat):
                for kind in args.kinds:
                    if kind != "loader" and kind in OWN and n_cells > args.most_trained:
                        continue
                    python = args.peer_python if kind in PEERS else sys.executable
                    row = {"cells": n_cells, "form": form, "kind": kind, "turn": turn}
                    row |= measure(kind, task, python)
                    print(json.dumps(row), flush=True)
                    results.append(row)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Table of the medians, and of the ratio to memory in the same turn."""
    lines = ["| cells | file | what | cells/s | of memory | MiB | MiB without 200 bytes a cell |"]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    good = [row for row in results if "cells_per_second" in row]
    for n_cells, form, kind in dict.fromkeys((r["cells"], r["form"], r["kind"]) for r in good):
        same = [r for r in good if (r["cells"], r["form"]) == (n_cells, form)]
        own = [r for r in same if r["kind"] == kind]
        memory = {r["turn"]: r["cells_per_second"] for r in same if r["kind"] == "memory"}
        ratios = [r["cells_per_second"] / memory[r["turn"]] for r in own if r["turn"] in memory]
        ratio = f"{median(ratios):.0%}" if ratios and kind == "files" else ""
        speed = f"{median(r['cells_per_second'] for r in own):,.0f}"
        peaks = [r["peak_mib"] for r in own if "peak_mib" in r]
        most = f"{max(peaks):,.0f} | {max(peaks) - n_cells * 200 / 2**20:,.0f}" if peaks else " | "
        lines.append(f"| {n_cells:,} | {form} | {kind} | {speed} | {ratio} | {most} |")
    return "\n".join(lines)


def extrapolate(results: list[dict[str, Any]], sizes: tuple[int, ...]) -> str:
    """Table of what larger data would take: seconds per cell of the largest file, times cells."""
    lines = ["| cells | file | set-up, min | order, min | reading an epoch, min | training, min |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for form in dict.fromkeys(row["form"] for row in results):
        own = [r for r in results if r["form"] == form and "cells_per_second" in r]
        loader = max((r for r in own if r["kind"] == "loader"), key=by_cells, default=None)
        training = max((r for r in own if r["kind"] == "files"), key=by_cells, default=None)
        if loader is None:
            continue
        for size in sizes:
            times = size / loader["cells"] / 60
            parts = [loader["opening_seconds"] + loader["setup_seconds"]]
            parts += [loader["planning_seconds"], loader["seconds"]]
            minutes = [f"{part * times:,.1f}" for part in parts]
            trained = f"{size / training['cells_per_second'] / 60:,.0f}" if training else ""
            lines.append(f"| {size:,} | {form} | {' | '.join(minutes)} | {trained} |")
    return "\n".join(lines)


def by_cells(row: dict[str, Any]) -> int:
    """Cells of a measurement."""
    return row["cells"]


def chart(results: list[dict[str, Any]], path: Path) -> None:
    """Cells per second of each loader, and seconds of an epoch by the number of cells."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    good = [row for row in results if "cells_per_second" in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    loaders = [r for r in good if r["kind"] in ("loader", "scvi", "scDataset", "annbatch")]
    size = 100_000 if any(r["cells"] == 100_000 for r in loaders) else loaders[0]["cells"]
    speeds: dict[str, list[float]] = {}
    for row in loaders:
        if row["cells"] == size:
            name = "cellvae" if row["kind"] == "loader" else row["kind"]
            speeds.setdefault(f"{name}, {row['form']}", []).append(row["cells_per_second"])
    medians = sorted((median(values), name) for name, values in speeds.items())
    colors = ["#4477aa" if name.startswith("cellvae") else "#bbbbbb" for _, name in medians]
    left.barh([name for _, name in medians], [speed for speed, _ in medians], color=colors)
    left.set(xscale="log", xlabel=f"cells per second read ({size:,} cells)")
    for place, (speed, _) in enumerate(medians):
        left.text(speed * 1.1, place, f"{speed:,.0f}", va="center", fontsize=7)
    left.set_xlim(min(1_000, medians[0][0] / 2), medians[-1][0] * 5)
    left.xaxis.set_minor_formatter(NullFormatter())
    for kind, marker in (("loader", "o"), ("files", "s"), ("memory", "^")):
        for form, color in zip(FORMS, ("#4477aa", "#ee6677", "#228833", "#ccbb44"), strict=True):
            own = sorted(
                (r["cells"], r["cells"] / r["cells_per_second"])
                for r in good
                if (r["kind"], r["form"]) == (kind, form)
            )
            if len({n for n, _ in own}) > 1:
                label = f"{'read' if kind == 'loader' else 'train, ' + kind}, {form}"
                right.plot(*zip(*own, strict=True), marker=marker, color=color, label=label)
    right.set(xscale="log", yscale="log", xlabel="cells", ylabel="seconds per epoch")
    right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cells", type=int, nargs="+", default=[10_000, 100_000])
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    add("--kinds", nargs="+", choices=OWN + PEERS, default=list(OWN))
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    add("--epochs", type=int, default=3)
    add("--most-trained", type=int, default=3_000_000, help="most cells that are trained on")
    add("--repeat", type=int, default=1)
    add("--threads", type=int, default=2)
    add("--seconds", type=float, default=20, help="longest time of another loader")
    add("--most-seconds", type=int, help="longest training; of more cells a part of an epoch")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "cellvae-disk")
    add("--warm", action="store_true", help="leave files in the page cache")
    add("--join", type=Path, nargs="+", default=[], help="results of earlier runs to be added")
    add("--only-join", action="store_true", help="tables and chart of earlier runs alone")
    add("--out", type=Path, help="file for all figures (.json)")
    add("--chart", type=Path, help="file for a chart (.svg)")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    results = [row for path in args.join for row in json.loads(path.read_text())["results"]]
    results += [] if args.only_join else measure_all(args)
    print(table(results), extrapolate(results, (10**7, 10**8)), sep="\n\n")
    if args.out:
        facts = {"density": DENSITY, "n_genes": N_GENES, "threads": args.threads}
        args.out.write_text(json.dumps({**facts, "results": results}, indent=1))
    if args.chart:
        chart(results, args.chart)


if __name__ == "__main__":
    main()
