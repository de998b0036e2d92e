"""How fast cellvae and scvi-tools train SCVI and ask it, case by case, in one interleaved run.

The cases: a (10,000 x 2,000, 15 % of counts not zero), b (4,000 x 10,000, 6 %), c (Kang, eight
donors), d (pbmc3k, all genes), e (200,000 x 2,000), each for zinb and nb; further ones for batches
of 1,024 cells, for validation and early stopping, for other numbers of cells and genes. Each run is
a process of its own and the packages take turns. All have the same cells, split, seed, batch size
and KL weights, and every time comes with the held-out negative ELBO that was reached.
`--peer-python` may name several environments: versions of scvi-tools that are compared at once.
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


def measured(run: Run, python: str, seed: int, data: Path, arguments: Any) -> dict[str, Any]:
    """Figures of one process."""
    variables = os.environ | dict.fromkeys(THREADS, str(run.threads))
    side = OURS if python == arguments.own_python else PEER
    if side == PEER:
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


def sides(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Runs of each package: those of scvi-tools, and of cellvae at the end."""
    return [*result[PEER], result[OURS]]


def ratios(result: dict[str, Any]) -> list[float]:
    """How many times as long an epoch takes with each scvi-tools."""
    *theirs, ours = (median(run["epoch"] for run in runs) for runs in sides(result))
    return [epoch / ours for epoch in theirs]


def table(results: list[dict[str, Any]]) -> str:
    """All comparisons, scvi-tools / cellvae, with the ratio of the epochs."""
    shown = [c for c in COLUMNS if any(middle(r[OURS], c[0]) is not None for r in results)]
    heads = [title for _, title, _ in shown]
    lines = [f"| case | {' | '.join(heads)} | times faster |", "|---|" + "---:|" * (len(heads) + 1)]
    for result in results:
        cells = []
        for key, _, digits in shown:
            values = [middle(runs, key) for runs in sides(result)]
            known = all(value is not None for value in values)
            cells.append(" / ".join(f"{value:,.{digits}f}" for value in values) if known else "")
        faster = " / ".join(f"{ratio:.2f}" for ratio in ratios(result))
        lines.append(f"| {result['title']} | {' | '.join(cells)} | {faster} |")
    versions = [runs[0]["version"] for runs in sides(results[0])]
    return f"scvi-tools {' / '.join(versions[:-1])} / cellvae\n\n" + "\n".join(lines) + "\n"


def chart(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of how many times faster each comparison was."""
    import matplotlib.pyplot as plt

    titles = [result["title"] for result in results]
    first = [ratios(result)[0] for result in results]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.3 * len(titles)), layout="constrained")
    axes.barh(titles, first, color="#4477aa")
    axes.axvline(1, color="0.3", linewidth=1)
    axes.invert_yaxis()
    version = results[0][PEER][0][0]["version"]
    axes.set_xlabel(f"training throughput, times that of scvi-tools {version}")
    for place, ratio in enumerate(first):
        axes.text(ratio + 0.03, place, f"{ratio:.1f}", va="center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def parsed() -> argparse.Namespace:
    """The command line."""
    groups = ["main", "large", "batches", "threads", "validation", "cells", "genes"]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--groups", nargs="+", choices=groups, default=groups)
    peer = os.environ.get("CELLVAE_PEER_PYTHON")
    add("--peer-python", nargs="+", default=[peer] if peer else [], help="Pythons with scvi-tools")
    add("--likelihoods", nargs="+", choices=["zinb", "nb"], default=["zinb", "nb"])
    add("--cases", nargs="+", default=None, help="names of cases, such as a and c; all by default")
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--real", type=Path, default=HERE.parent / "../shared/data", help="folder of real cells")
    add("--folder", type=Path, help="where simulated cells are kept; by default they are not")
    add("--repeat", type=int, default=3)
    add("--accelerator", choices=["cpu", "cuda"], default="cpu")
    add("--most-cells", type=int, default=1_000_000)
    add("--out", type=Path, default=Path("speed.json"))
    add("--chart", type=Path, help="file for a chart (.svg)")
    arguments = parser.parse_args()
    if not arguments.peer_python or not all(map(shutil.which, arguments.peer_python)):
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    return arguments


def main() -> None:
    arguments = parsed()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as own:
        folder = arguments.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for run in plan(arguments.groups):
            if run.likelihood not in arguments.likelihoods:
                continue
            if arguments.cases is not None and run.case not in arguments.cases:
                continue
            if "x" in run.case and int(run.case.split("x")[0]) > arguments.most_cells:
                continue
            data = data_of(run.case, folder, arguments.real)
            if data is None:
                print(f"{run.title}: left out, the cells are not there", file=sys.stderr)
                continue
            pythons = [*arguments.peer_python, arguments.own_python]
            found: list[list[dict[str, Any]]] = [[] for _ in pythons]
            result: dict[str, Any] = {"title": run.title, "run": asdict(run)}
            result |= {PEER: found[:-1], OURS: found[-1]}
            n_cells, n_genes = anndata.read_h5ad(data, backed="r").shape
            result |= {"n_cells": n_cells, "n_genes": n_genes}
            for number in range(arguments.repeat):
                turns = list(zip(pythons, found, strict=True))
                for python, runs in turns if number % 2 == 0 else turns[::-1]:
                    runs.append(measured(run, python, number, data, arguments))
            results.append(result)
            print(table([result]).splitlines()[-1], file=sys.stderr, flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    if arguments.chart is not None:
        chart(results, arguments.chart)


if __name__ == "__main__":
    main()
