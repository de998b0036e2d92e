"""How fast both packages train SCVI and ask it, case by case, in one interleaved run.

The cases: a (10,000 x 2,000, 15 % of counts not zero), b (4,000 x 10,000, 6 %), c (Kang, eight
donors), d (pbmc3k, all genes), e (200,000 x 2,000), each for zinb and nb; further ones for batches
of 1,024 cells, for validation and early stopping, for other numbers of cells and genes. Each run is
a process of its own and the packages take turns. Both have the same cells, split, seed, batch size
and KL weights, and every time comes with the held-out negative ELBO that was reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import anndata
from simulated import simulated

HERE = Path(__file__).resolve().parent
PEER, OURS = "scvi", "cellvae"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SIMULATED = {"a": (10_000, 2_000, 0.15), "b": (4_000, 10_000, 0.06), "e": (200_000, 2_000, 0.15)}
REAL = {"c": "kang_ctrl_8donors.h5ad", "d": "pbmc3k.h5ad"}
COLUMNS = (
    ("epoch", "s per epoch", 3),
    ("validation", "s per validation", 3),
    ("latent", "s for the latent", 3),
    ("get_elbo", "s for get_elbo", 3),
    ("elbo", "held-out -ELBO", 1),
    ("peak", "peak MiB", 0),
    ("device peak", "peak MiB of the GPU", 0),
    ("steps per s", "steps per s", 0),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One comparison."""

    case: str
    likelihood: str = "zinb"
    batch_size: int = 128
    validation: bool = False
    threads: int = 2
    epochs: int = 4

    @property
    def title(self) -> str:
        """What it is, for people."""
        held = ", validation" if self.validation else ""
        of = f"{self.likelihood}, batch {self.batch_size:,}{held}"
        return f"{self.case}: {of}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def plan(groups: list[str]) -> list[Run]:
    """Comparisons of the groups that were asked for."""
    likelihoods = ("zinb", "nb")
    runs: dict[str, list[Run]] = {
        "main": [
            Run(case=case, likelihood=likelihood)
            for case in ("a", "b", "c", "d")
            for likelihood in likelihoods
        ],
        "large": [Run(case="e", likelihood=likelihood, epochs=2) for likelihood in likelihoods],
        "batches": [Run(case=case, batch_size=1024) for case in ("a", "b")],
        "threads": [Run(case=case, threads=1) for case in ("a", "b")],
        "validation": [Run(case="a", validation=True), Run(case="c", validation=True)],
        "cells": [
            Run(case=f"{n}x2000", epochs=1 if n > 100_000 else 3)
            for n in (10_000, 30_000, 100_000, 300_000, 1_000_000)
        ],
        "genes": [Run(case=f"5000x{n}", epochs=3) for n in (500, 1_000, 2_000, 5_000, 20_000)],
    }
    return [run for group in groups for run in runs[group]]


def data_of(case: str, folder: Path, real: Path) -> Path | None:
    """File of a case, made if it is not there; None for real cells that are not at hand."""
    if case in REAL:
        path = real / REAL[case]
        return path if path.is_file() else None
    path = folder / f"{case}.h5ad"
    if not path.is_file():
        size = SIMULATED.get(case)
        if size is None:
            n_cells, n_genes = map(int, case.split("x"))
            size = (n_cells, n_genes, 0.15)
        simulated(*size).write_h5ad(path)
    return path


def measured(run: Run, side: str, seed: int, data: Path, arguments: Any) -> dict[str, Any]:
    """Figures of one process."""
    variables = os.environ | dict.fromkeys(THREADS, str(run.threads))
    python = arguments.own_python
    if side == PEER:
        python = arguments.peer_python
        variables.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.json"
        task.write_text(
            json.dumps(
                {
                    **asdict(run),
                    "data": str(data.resolve()),
                    "seed": seed,
                    "accelerator": arguments.accelerator,
                }
            )
        )
        done = subprocess.run(
            [python, HERE / "speed_worker.py", side, task],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{side}, {run.title}: the run failed.\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(runs: list[dict[str, Any]], key: str) -> float | None:
    """Median of a figure over repetitions; None where it was not measured."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return median(values) if values else None


def table(results: list[dict[str, Any]]) -> str:
    """All comparisons, scvi-tools / cellvae, with the ratio of the epochs."""
    shown = [c for c in COLUMNS if any(middle(r[OURS], c[0]) is not None for r in results)]
    heads = [title for _, title, _ in shown]
    lines = [f"| case | {' | '.join(heads)} | times faster |", "|---|" + "---:|" * (len(heads) + 1)]
    for result in results:
        cells = []
        for key, _, digits in shown:
            pair = [middle(result[side], key) for side in (PEER, OURS)]
            known = all(value is not None for value in pair)
            cells.append(" / ".join(f"{value:,.{digits}f}" for value in pair) if known else "")
        theirs, ours = (middle(result[side], "epoch") for side in (PEER, OURS))
        assert theirs is not None and ours is not None
        lines.append(f"| {result['title']} | {' | '.join(cells)} | {theirs / ours:.2f} |")
    return "\n".join(lines) + "\n"


def chart(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of how many times faster each comparison was."""
    import matplotlib.pyplot as plt

    titles = [result["title"] for result in results]
    ratios = [middle(r[PEER], "epoch") / middle(r[OURS], "epoch") for r in results]  # type: ignore[operator]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.3 * len(titles)), layout="constrained")
    axes.barh(titles, ratios, color="#4477aa")
    axes.axvline(1, color="0.3", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("training throughput, times that of scvi-tools 1.4.2")
    for place, ratio in enumerate(ratios):
        axes.text(ratio + 0.03, place, f"{ratio:.1f}", va="center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def parsed() -> argparse.Namespace:
    """The command line."""
    groups = ["main", "large", "batches", "threads", "validation", "cells", "genes"]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--groups", nargs="+", choices=groups, default=groups)
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--real", type=Path, default=HERE.parent / "../shared/data", help="folder of real cells")
    add("--folder", type=Path, help="where simulated cells are kept; by default they are not")
    add("--repeat", type=int, default=3)
    add("--accelerator", choices=["cpu", "cuda"], default="cpu")
    add("--most-cells", type=int, default=1_000_000)
    add("--out", type=Path, default=Path("speed.json"))
    add("--chart", type=Path, help="file for a chart (.svg)")
    arguments = parser.parse_args()
    if arguments.peer_python is None or shutil.which(arguments.peer_python) is None:
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    return arguments


def main() -> None:
    arguments = parsed()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as own:
        folder = arguments.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for run in plan(arguments.groups):
            if "x" in run.case and int(run.case.split("x")[0]) > arguments.most_cells:
                continue
            data = data_of(run.case, folder, arguments.real)
            if data is None:
                print(f"{run.title}: left out, the cells are not there", file=sys.stderr)
                continue
            result: dict[str, Any] = {"title": run.title, "run": asdict(run), PEER: [], OURS: []}
            n_cells, n_genes = anndata.read_h5ad(data, backed="r").shape
            result |= {"n_cells": n_cells, "n_genes": n_genes}
            for number in range(arguments.repeat):
                for side in (PEER, OURS) if number % 2 == 0 else (OURS, PEER):
                    result[side].append(measured(run, side, number, data, arguments))
            results.append(result)
            print(table([result]).splitlines()[-1], file=sys.stderr, flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    if arguments.chart is not None:
        chart(results, arguments.chart)


if __name__ == "__main__":
    main()
